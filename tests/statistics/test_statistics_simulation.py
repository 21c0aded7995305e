"""What 95 % intervals and corrected tests really do, on simulated data (fixed seeds).

The full version is benchmarks/statistics_simulation.py; bounds are those of the promise, 93 to
97 % and 7 %, and 1,500 data sets have a Monte Carlo error of 0.6 %.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from benchmarks.simulation.scores import Scenario, draw_pair, group_index, measure_coverage
from benchmarks.simulation.sweeps import measure_family_error, measure_power

PROMISED = [
    Scenario("one model, 200 examples"),
    Scenario("one model, binary", 150, binary=True),
    Scenario("one given seed", seeds_a=1, sd_seed=0.5, conditional=True),
    Scenario("groups", groups=40, sd_group=0.7),
    Scenario("3 seeds, B without", seeds_a=3, sd_seed=0.3),
    Scenario("3 seeds each", 150, seeds_a=3, seeds_b=3, sd_seed=0.1),
    Scenario("3 seeds each, binary", 150, seeds_a=3, seeds_b=3, sd_seed=0.3, binary=True),
    Scenario("5 seeds, B without", seeds_a=5, sd_seed=0.3),
    Scenario("5 seeds each", 150, seeds_a=5, seeds_b=5, sd_seed=0.15),
    Scenario("8 seeds each, groups", seeds_a=8, seeds_b=8, sd_seed=0.3, groups=40, sd_group=0.7),
]


@pytest.mark.parametrize("scenario", PROMISED, ids=lambda s: s.name)
def test_coverage_is_between_93_and_97_percent(scenario: Scenario) -> None:
    found = measure_coverage(scenario, 1500, n_resamples=800, seed=11)
    assert 0.93 <= found.coverage <= 0.97
    assert found.width > 0.0


def test_three_seeds_cover_their_own_difference_but_not_that_of_an_average_seed() -> None:
    taken: Any = {"seeds_a": 3, "sd_seed": 0.3, "minimum_seeds": 99}
    given = Scenario("given", 100, conditional=True, **taken)
    average = Scenario("average", 100, **taken)
    assert 0.93 <= measure_coverage(given, 1500, n_resamples=800, seed=3).coverage <= 0.97
    assert measure_coverage(average, 400, n_resamples=500, seed=3).coverage < 0.9


FAMILIES = [
    Scenario("continuous", 80),
    Scenario("binary", 120, binary=True),
    Scenario("groups", 120, groups=30, sd_group=0.7),
    Scenario("2 seeds", 80, seeds_a=2, seeds_b=2, sd_seed=0.3),
    Scenario("5 seeds", 80, seeds_a=5, seeds_b=5, sd_seed=0.3),
]


@pytest.mark.parametrize("scenario", FAMILIES, ids=lambda s: s.name)
def test_corrected_false_positives_stay_below_seven_percent(scenario: Scenario) -> None:
    found = measure_family_error(scenario, 500, 4, n_resamples=200, seed=2)
    assert found.corrected <= 0.07
    assert found.uncorrected > found.corrected


def test_pooling_grouped_examples_would_break_the_promise() -> None:
    """The simulation can fail: groups that are not declared give false alarms."""
    scenario = Scenario("groups", 120, groups=12, sd_group=1.5)
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        sides, truth = draw_pair(scenario, rng)
        values = sides.differences
        error = values.std(ddof=1) / np.sqrt(values.size)
        hits += abs(values.mean() - truth) <= 1.96 * error
    assert hits / 200 < 0.8


def test_stated_detectable_effect_is_found_four_times_in_five() -> None:
    found = measure_power(Scenario("continuous", 100), 300, n_resamples=250, seed=4)
    assert found.measured == pytest.approx(0.8, abs=0.07)


def test_simulated_groups_are_unequal_and_all_present() -> None:
    sizes = np.bincount(group_index(200, 40))
    assert sizes.size == 40
    assert sizes.min() >= 1
    assert sizes.max() >= 2 * sizes.min()
