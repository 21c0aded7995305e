"""Paired tests against enumeration, scipy and hand-computed cases."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sizewise.errors import StatisticsError
from sizewise.statistics.paired import (
    fallback,
    holm,
    mcnemar_test,
    resamples_needed,
    sign_flip_test,
)


def enumerated(values: np.ndarray) -> float:
    totals = [abs(np.dot(s, values)) for s in itertools.product([1, -1], repeat=len(values))]
    return float(np.mean(np.array(totals) >= abs(values.sum()) - 1e-9))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-6, 6), min_size=1, max_size=9))
def test_exact_test_equals_enumeration(values: list[int]) -> None:
    numbers = np.array(values, dtype=float) / 10.0
    found = sign_flip_test(numbers)
    assert found.exact
    assert found.p_value == pytest.approx(enumerated(numbers))
    assert found.p_value >= found.smallest_p - 1e-12


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_exact_and_sampled_tests_agree_with_scipy(alternative: str) -> None:
    differences = np.random.default_rng(0).normal(0.4, 1.0, 12)
    reference = stats.permutation_test(
        (differences, np.zeros(12)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
        alternative=alternative,
    ).pvalue
    exact = sign_flip_test(differences, alternative=alternative)
    sampled = sign_flip_test(differences, alternative=alternative, n_resamples=4000)
    assert (exact.exact, sampled.exact) == (True, False)
    assert exact.p_value == pytest.approx(reference)
    assert sampled.p_value == pytest.approx(reference, abs=0.02)


def test_many_examples_agree_with_the_t_test() -> None:
    differences = np.random.default_rng(1).normal(0.1, 1.0, 500)
    found = sign_flip_test(differences)
    assert found.p_value == pytest.approx(stats.ttest_1samp(differences, 0.0).pvalue, abs=0.01)


def test_sampled_p_values_count_the_observed_pattern() -> None:
    found = sign_flip_test(np.ones(100), n_resamples=999)
    assert found.p_value == found.smallest_p == pytest.approx(1 / 1000)
    assert resamples_needed(200) * (0.05 / 200) >= 1.0


def test_groups_flip_together() -> None:
    groups = np.repeat(np.arange(6), 4)
    differences = np.random.default_rng(2).normal(0.3, 1.0, 24)
    sums = np.array([differences[groups == g].sum() for g in range(6)])
    found = sign_flip_test(differences, groups)
    assert found.p_value == pytest.approx(enumerated(sums))
    assert found.smallest_p == pytest.approx(2.0**-5)


def test_copied_examples_in_groups_are_no_new_evidence() -> None:
    differences = np.random.default_rng(3).normal(0.5, 1.0, 10)
    once = sign_flip_test(differences).p_value
    copies = sign_flip_test(np.repeat(differences, 5), np.repeat(np.arange(10), 5)).p_value
    pooled = sign_flip_test(np.repeat(differences, 5)).p_value
    assert copies == pytest.approx(once)
    assert pooled < once


def test_equal_sides_give_a_p_value_of_one() -> None:
    assert sign_flip_test(np.zeros(30)).p_value == 1.0


@given(st.lists(st.floats(-2, 2, width=16), min_size=2, max_size=30))
@settings(max_examples=30, deadline=None)
def test_swapping_sides_keeps_the_two_sided_p_value(values: list[float]) -> None:
    forth = sign_flip_test(np.array(values), n_resamples=500).p_value
    back = sign_flip_test(-np.array(values), n_resamples=500).p_value
    assert forth == pytest.approx(back)


def test_three_seeds_cannot_go_below_a_quarter() -> None:
    for seeds, least in (([5.0, 6.0, 7.0], 0.25), ([5.0, 6.0, 7.0, 5.0, 6.0], 0.0625)):
        found = sign_flip_test(seeds)
        assert found.p_value == found.smallest_p == least


def binary_pair(both: int, only_a: int, only_b: int, neither: int) -> tuple[list, list]:
    a = [1] * both + [1] * only_a + [0] * only_b + [0] * neither
    b = [1] * both + [0] * only_a + [1] * only_b + [0] * neither
    return a, b


def test_mcnemar_by_hand() -> None:
    found = mcnemar_test(*binary_pair(20, 9, 2, 5))
    assert (found.both, found.only_a, found.only_b, found.neither) == (20, 9, 2, 5)
    tail = sum(math.comb(11, k) for k in range(3)) / 2**11
    assert found.p_exact == pytest.approx(2 * tail)
    assert found.p_mid == pytest.approx(2 * tail - math.comb(11, 2) / 2**11)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 5))
def test_exact_mcnemar_is_the_binomial_test(only_a: int, only_b: int, both: int) -> None:
    found = mcnemar_test(*binary_pair(both, only_a, only_b, 1))
    if only_a + only_b:
        reference = stats.binomtest(only_a, only_a + only_b, 0.5).pvalue
        assert found.p_exact == pytest.approx(reference, abs=1e-9)
    else:
        assert found.p_exact == found.p_mid == 1.0
    swapped = mcnemar_test(*reversed(binary_pair(both, only_a, only_b, 1)))
    assert (swapped.p_exact, swapped.p_mid) == pytest.approx((found.p_exact, found.p_mid))
    assert 0.0 < found.p_mid <= found.p_exact <= 1.0


def test_exact_mcnemar_is_the_exact_sign_flip_test() -> None:
    a, b = np.array(binary_pair(20, 7, 3, 5), dtype=float)
    assert mcnemar_test(a, b).p_exact == pytest.approx(sign_flip_test(a - b).p_value)


def test_mcnemar_refuses_scores_between() -> None:
    with pytest.raises(StatisticsError, match="0 and 1 only"):
        mcnemar_test([0.5, 1.0], [1.0, 0.0])
    with pytest.raises(StatisticsError, match="alternative"):
        sign_flip_test([1.0, 2.0], alternative="bigger")


def closed_test(p: np.ndarray, primary: int, alpha: float, share: float) -> np.ndarray:
    """Reject what every intersection that holds it rejects by its weighted Bonferroni test."""
    m = len(p)
    rejected = np.ones(m, dtype=bool)
    for members in range(1, 1 << m):
        inside = [i for i in range(m) if members >> i & 1]
        n = len(inside)
        if primary not in inside or n == 1:
            weights = {i: 1.0 / n for i in inside}
        else:
            weights = {i: share if i == primary else (1 - share) / (n - 1) for i in inside}
        if not any(p[i] <= alpha * weights[i] for i in inside):
            rejected[inside] = False
    return rejected


@given(
    st.lists(st.floats(1e-6, 0.2), min_size=1, max_size=6),
    st.integers(0, 5),
    st.sampled_from([0.5, 0.8, 0.9]),
)
@settings(max_examples=200, deadline=None)
def test_fallback_is_the_closed_test_with_its_weights(
    values: list[float], primary: int, share: float
) -> None:
    """Closure (Marcus, Peritz & Gabriel 1976) is what holds the family-wise error."""
    p, primary = np.array(values), primary % len(values)
    found = fallback(p, primary, 0.05, share)
    away = np.abs(found.adjusted - 0.05) > 1e-9
    assert (found.rejected == closed_test(p, primary, 0.05, share))[away].all()
    assert ((p <= found.levels) == found.rejected)[away].all()


def test_fallback_without_a_primary_test_is_holm() -> None:
    p = np.array([0.01, 0.04, np.nan, 0.03, 0.005])
    found = fallback(p, None)
    expected = holm(p, nan="propagate").adjusted
    assert found.adjusted == pytest.approx(expected, nan_ok=True)
    assert np.isnan(found.levels[2])


def test_a_rejected_primary_test_hands_its_level_to_the_others() -> None:
    p = np.array([0.03, 0.02, 0.025, 0.6])
    first = fallback(p, 0)
    assert list(first.rejected) == [True, False, False, False]
    assert first.levels == pytest.approx([0.04, 0.05 / 3, 0.05 / 3, 0.05 / 3])
    open_still = fallback(np.array([0.5, 0.001, 0.025, 0.6]), 0)
    assert list(open_still.rejected) == [False, True, False, False]
    assert open_still.levels == pytest.approx([0.04, 0.01 / 3, 0.005, 0.005])
    last = fallback(np.array([0.045, 0.0001, 0.0001]), 0)
    assert last.rejected.all()
    assert last.levels[0] == pytest.approx(0.05)
