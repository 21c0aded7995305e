"""Paired tests of no difference between two sides, and the correction for their number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from sizewise.errors import StatisticsError
from sizewise.statistics.arrays import (
    BoolArray,
    FloatArray,
    finite,
    fraction,
    positive_count,
    same_length,
)
from sizewise.statistics.resampling import (
    Groups,
    Units,
    all_sign_patterns,
    sign_flip_sums,
    units_of,
)

Alternative = Literal["two-sided", "greater", "less"]
# Sums of the same numbers in another order differ by rounding; ties count as at least as extreme.
ROUNDING = 1e-12


@dataclass(frozen=True)
class SignFlipTest:
    """Result of a sign-flip test.

    `smallest_p` is the least p-value the test can give here: 2**(1 − units) two-sided when exact,
    1 / (n_resamples + 1) otherwise. A correction over m tests needs it below alpha / m.
    """

    p_value: float
    exact: bool
    n_resamples: int
    smallest_p: float


@dataclass(frozen=True)
class McNemarTest:
    """Counts of a paired binary comparison and the p-values of no difference."""

    both: int
    only_a: int
    only_b: int
    neither: int
    p_exact: float
    p_mid: float


def sign_flip_test(
    differences: ArrayLike,
    groups: Groups | None = None,
    *,
    alternative: Alternative = "two-sided",
    n_resamples: int = 10_000,
    seed: int = 0,
) -> SignFlipTest:
    """Paired permutation test: swapping the sides flips the sign of an example's difference.

    `differences` [N]; with `groups` all examples of a group flip together. Exact where all
    patterns of the non-zero units number at most `n_resamples`, otherwise Monte Carlo with the
    observed arrangement counted (Phipson & Smyth 2010, SAGMB 9). Tests a mean of zero.
    """
    rows = finite(differences, "differences", 1)[None, :]
    units = units_of(groups, rows.shape[1])
    return sign_flip_tests(
        rows, units, alternative=alternative, n_resamples=n_resamples, seed=seed
    )[0]


def sign_flip_tests(
    differences_CN: FloatArray,
    units: Units,
    *,
    alternative: Alternative = "two-sided",
    n_resamples: int = 10_000,
    seed: int = 0,
) -> list[SignFlipTest]:
    """`sign_flip_test` of C rows of differences with the same random signs."""
    positive_count(n_resamples, "n_resamples")
    if alternative not in ("two-sided", "greater", "less"):
        raise StatisticsError(f"alternative={alternative!r}: use two-sided, greater or less.")
    sums_UC = units.sums(differences_CN).T
    sampled = [c for c in range(sums_UC.shape[1]) if not _few(sums_UC[:, c], n_resamples)]
    results = {
        c: _exact_test(sums_UC[:, c], alternative)
        for c in range(sums_UC.shape[1])
        if c not in set(sampled)
    }
    if sampled:
        counts = _extreme_counts(sums_UC[:, sampled], alternative, n_resamples, seed)
        smallest = 1.0 / (n_resamples + 1)
        for column, count in zip(sampled, counts, strict=True):
            p_value = float((count + 1) / (n_resamples + 1))
            results[column] = SignFlipTest(p_value, False, n_resamples, smallest)
    return [results[c] for c in range(sums_UC.shape[1])]


def _few(sums_U: FloatArray, n_resamples: int) -> bool:
    moving = int(np.count_nonzero(sums_U))
    return moving < 63 and 1 << moving <= n_resamples


def _exact_test(sums_U: FloatArray, alternative: Alternative) -> SignFlipTest:
    """Enumerate the signs of the non-zero units; zeros contribute nothing to any pattern."""
    values = sums_U[sums_U != 0.0]
    totals = all_sign_patterns(values.size) @ values
    extreme = _as_extreme(totals[:, None], values.sum(keepdims=True), values[:, None], alternative)
    sides = 2.0 if alternative == "two-sided" and values.size else 1.0
    smallest = sides / totals.size
    return SignFlipTest(float(extreme.mean()), True, int(totals.size), smallest)


def _extreme_counts(
    sums_UC: FloatArray, alternative: Alternative, n_resamples: int, seed: int
) -> FloatArray:
    observed_C = sums_UC.sum(axis=0)
    counts_C = np.zeros(sums_UC.shape[1])
    rng = np.random.default_rng([seed, 2])
    for block in sign_flip_sums(sums_UC, n_resamples, rng):
        counts_C += _as_extreme(block, observed_C, sums_UC, alternative).sum(axis=0)
    return counts_C


def _as_extreme(
    totals_RC: FloatArray, observed_C: FloatArray, sums_UC: FloatArray, alternative: Alternative
) -> BoolArray:
    slack_C = ROUNDING * np.abs(sums_UC).sum(axis=0)
    if alternative == "greater":
        return np.asarray(totals_RC >= observed_C - slack_C)
    if alternative == "less":
        return np.asarray(totals_RC <= observed_C + slack_C)
    return np.asarray(np.abs(totals_RC) >= np.abs(observed_C) - slack_C)


def mcnemar_test(correct_a: ArrayLike, correct_b: ArrayLike) -> McNemarTest:
    """McNemar's test of paired binary scores [N], exact (binomial) and mid-p.

    The exact test keeps its level at any n; the mid-p test is less conservative and nearly keeps
    it (Fagerland, Lydersen & Laake 2013, BMC Medical Research Methodology 13:91). Examples must be
    independent: use `sign_flip_test` with groups otherwise.
    """
    a, b = finite(correct_a, "correct_a", 1), finite(correct_b, "correct_b", 1)
    same_length(a, b, "correct_a and correct_b")
    if not (is_binary(a) and is_binary(b)):
        raise StatisticsError("McNemar's test needs scores of 0 and 1 only; use sign_flip_test.")
    right_a, right_b = a == 1.0, b == 1.0
    both = int(np.sum(right_a & right_b))
    only_a, only_b = int(np.sum(right_a & ~right_b)), int(np.sum(~right_a & right_b))
    neither = a.size - both - only_a - only_b
    differ = only_a + only_b
    p_exact = float(stats.binomtest(only_a, differ).pvalue) if differ else 1.0
    at_observed = float(stats.binom.pmf(only_a, differ, 0.5))
    p_mid = p_exact if only_a == only_b else p_exact - at_observed
    return McNemarTest(both, only_a, only_b, neither, min(p_exact, 1.0), min(p_mid, 1.0))


def is_binary(values: FloatArray) -> bool:
    return bool(np.all((values == 0.0) | (values == 1.0)))


def resamples_needed(n_tests: int, alpha: float = 0.05) -> int:
    """Monte Carlo resamples so that the smallest p-value, times `n_tests`, is at most alpha / 2."""
    return math.ceil(2.0 * positive_count(n_tests, "n_tests") / alpha)


@dataclass(frozen=True)
class HolmCorrection:
    """Adjusted p-values [M] and rejections [M] at family-wise level `alpha`.

    A test without a p-value (NaN, with nan="propagate") is not among those corrected for, stays
    NaN and is not rejected.
    """

    adjusted: FloatArray
    rejected: BoolArray
    alpha: float


@dataclass(frozen=True)
class Fallback:
    """Adjusted p-values [M] and the level alpha [M] at which each test was last made.

    `levels`: for a rejected test that of its step, else that of the last step; 1 − level is the
    interval that agrees with the decision. NaN for tests without a p-value.
    """

    adjusted: FloatArray
    rejected: BoolArray
    levels: FloatArray


# Share of alpha that the primary test gets while it is not rejected.
PRIMARY_SHARE = 0.8


def fallback(
    p_values: ArrayLike,
    primary: int | None,
    alpha: float = 0.05,
    share: float = PRIMARY_SHARE,
) -> Fallback:
    """One primary test first, then Holm's correction over the others.

    The fallback procedure (Wiens 2003, Pharmaceutical Statistics 2) in its graphical form (Bretz,
    Maurer, Brannath & Posch 2009, Statistics in Medicine 28): the primary test is made at
    `share` × alpha, the others share the rest by Holm. A rejected primary test hands its level to
    the others, which then are tested by Holm at the whole alpha; were all others rejected, it is
    tested at alpha. Holds the family-wise error at alpha under any dependence, whether or not the
    primary hypothesis is true; a gate that opens for the others only after the primary rejection
    would claim nothing where it fails. `primary` None: Holm (1979) over all.
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted, levels = np.full(p.shape, np.nan), np.full(p.shape, np.nan)
    left = [int(i) for i in np.flatnonzero(~np.isnan(p))]
    highest, passing = 0.0, True
    while left:
        weights = _weights(left, primary, share)
        ratios = p[left] / weights
        first = int(np.argmin(ratios))
        highest = max(highest, min(1.0, float(ratios[first])))
        if passing and highest > alpha:
            levels[left] = alpha * weights
            passing = False
        adjusted[left[first]] = highest
        if passing:
            levels[left[first]] = alpha * weights[first]
        del left[first]
    return Fallback(adjusted, adjusted <= alpha, levels)


def _weights(left: Sequence[int], primary: int | None, share: float) -> FloatArray:
    """Shares of alpha of the tests that are left, [len(left)]."""
    n = len(left)
    if primary not in left or n == 1:
        return np.full(n, 1.0 / n)
    return np.array([share if i == primary else (1.0 - share) / (n - 1) for i in left])


def holm(
    p_values: ArrayLike, alpha: float = 0.05, *, nan: Literal["raise", "propagate"] = "raise"
) -> HolmCorrection:
    """Holm's step-down correction (Holm 1979, Scandinavian Journal of Statistics 6).

    Holds the family-wise error rate at `alpha` under any dependence. An empty family is allowed.
    Raises StatisticsError for p-values outside 0..1, and for NaN unless nan="propagate".
    """
    fraction(alpha, "alpha")
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1:
        raise StatisticsError(f"p_values has {p.ndim} dimensions; pass one p-value per test.")
    present = ~np.isnan(p)
    if nan not in ("raise", "propagate"):
        raise StatisticsError(f"nan={nan!r} is unknown; use 'raise' or 'propagate'.")
    if nan == "raise" and not present.all():
        raise StatisticsError(
            f"p_values {np.flatnonzero(~present).tolist()} are NaN: a test without a result cannot "
            "be corrected; leave it out of the family, or pass nan='propagate'."
        )
    if np.any((p[present] < 0.0) | (p[present] > 1.0)):
        raise StatisticsError("p_values must lie between 0 and 1.")
    adjusted = np.full(p.shape, np.nan)
    size = int(present.sum())
    smallest_first = np.flatnonzero(present)[np.argsort(p[present], kind="stable")]
    # statsmodels' multipletests, which gives the same, collects garbage in every call (0.2 s).
    raised = np.maximum.accumulate(p[smallest_first] * np.arange(size, 0, -1))
    adjusted[smallest_first] = np.minimum(raised, 1.0)
    return HolmCorrection(adjusted, adjusted <= alpha, alpha)
