"""What reports of simulated sweeps claim where nothing differs, and where something does.

The full version, 500 sweeps a row, is in benchmarks/statistics_simulation.py; bounds here allow for
the Monte Carlo error of fewer.
"""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.simulation.claims import (
    TUNED_ARMS,
    Claims,
    Planted,
    measure_claims,
    name_of,
    primary_of,
)
from benchmarks.simulation.claims import draw_sweep as draw
from benchmarks.simulation.scores import Scenario

from sizewise.report.comparison.pairs import METHODS, MODELS, RANKS, compare_pairs

SWEEP = Scenario("", 120, seeds_a=3, sd_seed=0.05, sd_example=0.5)
TUNED = [f"{model} {method} {rank}" for model, method, rank in TUNED_ARMS]


def claims(
    name: str,
    shifts: dict[str, float],
    scenario: Scenario = SWEEP,
    margin: float | None = None,
) -> Claims:
    planted = Planted(name, scenario, shifts)
    return measure_claims(planted, 100, margin=margin, n_resamples=200, seed=3)


@pytest.mark.parametrize("sd_seed", [0.05, 0.3])
def test_equal_arms_are_rarely_claimed_to_differ(sd_seed: float) -> None:
    """5 % of 100 sweeps; more than 10 happen once in a hundred."""
    found = claims("equal", {}, Scenario("", 120, seeds_a=3, sd_seed=sd_seed, sd_example=0.5))
    assert found.wrong["any"] <= 0.10
    for family in (RANKS, METHODS, MODELS):
        assert found.wrong[family] <= 0.10


def test_a_planted_difference_of_the_primary_pair_is_found_with_the_stated_power() -> None:
    small, detectable = primary_of(SWEEP)
    found = claims("detectable", {small: detectable})
    assert found.found == pytest.approx(0.8, abs=0.12)
    assert found.wrong["any"] <= 0.10


def test_true_differences_do_not_bring_false_ones_with_them() -> None:
    """Where the primary pair is found its level goes to the others: their error must hold."""
    found = claims("tuned are better", dict.fromkeys(TUNED, 0.5))
    assert found.found > 0.9
    assert max(found.wrong[family] for family in (RANKS, METHODS, MODELS)) <= 0.10


def test_what_is_worse_by_the_margin_is_rarely_called_good_enough() -> None:
    found = claims("at the margin", {"mini": 0.1}, margin=0.1)
    assert found.near_wrong <= 0.10
    assert found.not_worse_wrong <= 0.10


def test_the_simulation_can_fail() -> None:
    """Uncorrected tests of the same sweeps do claim what is not there."""
    rng, planted = np.random.default_rng(0), Planted("equal", SWEEP)
    wrong = 0
    for number in range(60):
        pairs = compare_pairs(draw(planted, rng), seed=number, resamples=100)
        wrong += any(pair.result.p_value <= 0.05 for pair in pairs)
        assert all(name_of(pair.a) != name_of(pair.b) for pair in pairs)
    assert wrong / 60 > 0.15
