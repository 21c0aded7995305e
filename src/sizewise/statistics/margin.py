"""Which of several models are not worse than the best of them by more than a margin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from sizewise.errors import StatisticsError
from sizewise.statistics.arrays import FloatArray
from sizewise.statistics.bootstrap import joint_replicates
from sizewise.statistics.crossed import VarianceComponents, variance_components
from sizewise.statistics.paired import fallback, is_binary
from sizewise.statistics.resampling import Groups
from sizewise.statistics.sides import Sides, sides_of


@dataclass(frozen=True)
class NearBest:
    """K models against the unknown best of them.

    `p_near` [K]: p-value of "this model is worse than the best by the margin or more", corrected
    for all models at once: a model is shown to be near the best where it is at most alpha.
    `share_best` [K]: share of the resamples in which the model has the best mean (ties shared).
    """

    margin: float
    p_near: FloatArray
    share_best: FloatArray


def near_best(
    rows: Sequence[ArrayLike],
    groups: Groups | None = None,
    *,
    margin: float,
    higher_is_better: bool = True,
    weights: ArrayLike | None = None,
    n_resamples: int = 4_000,
    seed: int = 0,
) -> NearBest:
    """Compare K rows of scores, each [N] or [S, N] on the same N examples, with their best.

    Multiple comparisons with the best (Hsu 1984, Annals of Statistics 12): if model b were the
    best, a wrong claim could only be made about another model i, by the test that i is worse than
    b by the margin or more. These K − 1 one-sided t tests over seeds and examples are corrected by
    Holm (1979), which allows for unequal variances and shared examples where Hsu has Dunnett's
    quantile. The best is unknown, so a model must pass for every b; whichever is the best, the
    chance that any model is wrongly called near it is at most alpha.

    Raises StatisticsError for a margin that is not positive or scores that do not fit together.
    """
    if not margin > 0.0:
        raise StatisticsError(f"margin={margin}: how much worse is still good enough must be > 0.")
    p_worse_KK = _p_worse(rows, groups, margin, weights, higher_is_better)
    joint = joint_replicates(
        rows, groups, n_resamples=n_resamples, seed=seed, weights=weights, stretched=False
    )
    replicates_RK = joint.replicates if higher_is_better else -joint.replicates
    best_RK = replicates_RK == replicates_RK.max(axis=1, keepdims=True)
    share = (best_RK / best_RK.sum(axis=1, keepdims=True)).mean(axis=0)
    return NearBest(margin, _over_all_best(p_worse_KK), share)


def _over_all_best(p_worse_KK: FloatArray) -> FloatArray:
    """Largest corrected p-value of each model over all that may be the best, [K]."""
    count = p_worse_KK.shape[0]
    p_near = np.zeros(count)
    for best in range(count):
        others = [i for i in range(count) if i != best]
        adjusted = fallback(np.nan_to_num(p_worse_KK[others, best], nan=1.0), None).adjusted
        p_near[others] = np.maximum(p_near[others], adjusted)
    return p_near


def _p_worse(
    rows: Sequence[ArrayLike],
    groups: Groups | None,
    margin: float,
    weights: ArrayLike | None,
    higher_is_better: bool,
) -> FloatArray:
    """p-values [K, K] of "row i is worse than row j by the margin or more"."""
    found = np.zeros((len(rows), len(rows)))
    for i, j in combinations(range(len(rows)), 2):
        forth = OneSided.of(sides_of(rows[i], rows[j], groups, weights=weights))
        back = forth.negated
        better, worse = (forth, back) if higher_is_better else (back, forth)
        found[i, j], found[j, i] = better.p_at_most(-margin), worse.p_at_most(-margin)
    return found


@dataclass(frozen=True)
class OneSided:
    """A difference with what one-sided tests of it against any value need.

    `everywhere`: binary scores whose difference is the same on every one of `n_units` units, so
    that nothing varies (see `same_everywhere`).
    """

    difference: float
    components: VarianceComponents
    n_units: int
    everywhere: bool

    @classmethod
    def of(cls, sides: Sides) -> OneSided:
        """From two sides, seeds that vary as a level of their own."""
        differences = sides.differences
        random = [scores for _, scores in sides.random_scores]
        parts = variance_components(differences, random, sides.units)
        return cls(
            float(differences.mean()),
            parts,
            sides.units.count,
            same_everywhere(sides, parts.standard_error),
        )

    @property
    def negated(self) -> OneSided:
        """The same with the sides changed over."""
        return replace(self, difference=-self.difference)

    def p_at_most(self, value: float) -> float:
        """p-value of "the true difference is at most `value`"; NaN if nothing varies.

        That of the t statistic, or the level at which Clopper-Pearson's bound of differences that
        are the same everywhere reaches `value`.
        """
        if self.everywhere:
            if value >= self.difference:
                return 1.0
            share = min(1.0, (self.difference - value) / (1.0 + self.difference))
            return float((1.0 - share) ** self.n_units)
        above = self.difference - value
        half = self.components.p_value(above) / 2.0
        return half if above > 0.0 else 1.0 - half


def same_everywhere(sides: Sides, standard_error: float) -> bool:
    """Whether binary scores differ by the same -1, 0 or 1 on every example."""
    seen = sides.differences
    equal = float(np.ptp(seen)) == 0.0 and standard_error == 0.0
    binary = is_binary(sides.a.scores) and is_binary(sides.b.scores)
    return bool(equal and binary and seen.flat[0] in (-1.0, 0.0, 1.0))
