"""Not worse than the best by more than a margin: who passes, and how often wrongly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from sizewise.errors import StatisticsError
from sizewise.statistics.margin import FEW_DISCORDANT, Discordance, OneSided, near_best
from sizewise.statistics.sides import sides_of


def models(means: list[float], n: int, rng: np.random.Generator, seeds: int = 1) -> list:
    shared = rng.normal(0.0, 1.0, n)
    return [m + shared + rng.normal(0.0, 0.3, (seeds, n)) for m in means]


def test_near_models_pass_and_far_ones_do_not() -> None:
    rows = models([0.5, 0.5, 0.2], 400, np.random.default_rng(0), seeds=3)
    found = near_best(rows, margin=0.1)
    assert (found.p_near[:2] < 0.05).all()
    assert found.p_near[2] > 0.5
    assert found.share_best.sum() == pytest.approx(1.0)
    assert found.share_best[2] == 0.0


def test_too_few_examples_leave_all_open() -> None:
    rows = models([0.5, 0.5, 0.5], 12, np.random.default_rng(1))
    assert (near_best(rows, margin=0.05).p_near > 0.05).all()


def test_a_model_far_from_the_best_is_rarely_called_near() -> None:
    """All but one are worse by exactly the margin: any claim about them is wrong."""
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(300):
        rows = models([0.2, 0.1, 0.1, 0.1, 0.1], 60, rng)
        wrong += bool((near_best(rows, margin=0.1, n_resamples=10).p_near[1:] <= 0.05).any())
    assert wrong / 300 <= 0.08


def test_seeds_that_scatter_keep_a_model_from_passing() -> None:
    rng = np.random.default_rng(3)
    rows = models([0.5, 0.5], 400, rng, seeds=3)
    steady = near_best(rows, margin=0.1).p_near
    rows[1] = rows[1] + np.array([[-0.2], [0.0], [0.2]])
    assert near_best(rows, margin=0.1).p_near[1] > 0.05 > steady[1]


@given(st.integers(2, 5), st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_less_may_be_better_and_a_wider_margin_lets_more_pass(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = models(list(rng.uniform(0, 0.3, count)), 40, rng)
    more = near_best(rows, margin=0.1, n_resamples=200)
    less = near_best([-row for row in rows], margin=0.1, n_resamples=200, higher_is_better=False)
    assert less.p_near == pytest.approx(more.p_near)
    assert less.share_best == pytest.approx(more.share_best)
    assert (near_best(rows, margin=0.2, n_resamples=20).p_near <= more.p_near + 1e-12).all()


def test_models_right_on_the_same_examples_are_near_only_where_there_are_enough() -> None:
    few, many = (near_best([np.ones(n), np.ones(n)], margin=0.02).p_near for n in (50, 400))
    assert few[0] == pytest.approx(0.98**50)
    assert many[0] == pytest.approx(0.98**400)


def test_the_score_test_is_tangos() -> None:
    """44 patients, of whom one did worse: Tango (1998), table I, margin 0.1."""
    worse = Discordance(1, 0.0, 1.0)
    assert norm.isf(worse.p_at_most(-0.1, 44)) == pytest.approx(1.709, abs=1e-3)
    assert worse.negated.p_at_most(-0.1, 44) < worse.p_at_most(-0.1, 44)


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_loss_of_exactly_the_margin_is_rarely_called_none(seeds: int) -> None:
    """Few examples differ: a t test alone would be wrong in a tenth of the cases."""
    rng = np.random.default_rng(seeds)
    large = (rng.random(200) < 0.6).astype(float)
    by_t = wrong = 0
    for _ in range(400):
        lost = rng.beta(0.5 * 0.02 / 0.6, 0.5 * (1 - 0.02 / 0.6), 200)
        small = np.where(large == 1.0, rng.random((seeds, 200)) >= lost, 0.0)
        found = OneSided.of(sides_of(small, large, None))
        wrong += found.p_at_most(-0.02) <= 0.05
        by_t += replace(found, discordance=None).p_at_most(-0.02) <= 0.05
    assert wrong / 400 <= 0.05 < 0.07 < by_t / 400


def test_to_lose_an_example_shows_nothing() -> None:
    """80 examples in 36 groups: identical answers say as little."""
    groups = [str(i % 36) for i in range(80)]
    large = np.resize([1.0, 0.0, 0.0], 80)
    small = np.tile(large, (3, 1))
    small[0, 0] = 0.0
    same, one = (OneSided.of(sides_of(rows, large, groups)) for rows in (large, small))
    assert same.p_at_most(-0.02) > 0.3
    assert one.p_at_most(-0.02) > 0.2
    assert one.discordance == Discordance(1, 0.0, pytest.approx(36 / 80 / 3))


@given(seed=st.integers(0, 50), differ=st.integers(1, 60))
def test_where_many_units_differ_it_is_the_t_test(seed: int, differ: int) -> None:
    rng = np.random.default_rng(seed)
    large = (rng.random(200) < 0.5).astype(float)
    small = large.copy()
    small[:differ] = 1.0 - small[:differ]
    found = OneSided.of(sides_of(small, large, None))
    plain = replace(found, discordance=None).p_at_most(-0.05)
    p = found.p_at_most(-0.05)
    assert p == plain if differ >= FEW_DISCORDANT else p >= plain
    assert found.discordance is not None
    assert found.discordance.units == differ == found.discordance.wins + found.discordance.losses


def test_a_margin_must_be_positive() -> None:
    with pytest.raises(StatisticsError, match="margin"):
        near_best([np.ones(5), np.zeros(5)], margin=0.0)
