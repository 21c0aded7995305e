"""Which of several models are not worse than the best of them by more than a margin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

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


FEW_DISCORDANT = 30
"""Units that differ, below which a t test of a loss is not trusted: by itself it is wrong in up to
12 % of simulated cases instead of 5 % (``benchmarks/margin_simulation.py``)."""


@dataclass(frozen=True)
class Discordance:
    """In how many units binary scores differ, and by how much in favour of each side.

    `wins` and `losses` are sums over units of their mean differences over examples and seeds, a
    unit of mean size counting 1.
    """

    units: int
    wins: float
    losses: float

    @classmethod
    def of(cls, sides: Sides) -> Discordance | None:
        """Count in two sides; None where scores are not binary or examples have weights."""
        weighted = sides.units.weights is not None
        if weighted or not (is_binary(sides.a.scores) and is_binary(sides.b.scores)):
            return None
        mean_N = np.atleast_2d(sides.differences).mean(axis=0, keepdims=True)
        sums_U = sides.units.sums(mean_N)[0] * sides.units.count / sides.units.examples
        differs = int(np.count_nonzero(np.abs(sums_U) > 1e-12))
        return cls(differs, float(sums_U[sums_U > 0].sum()), float(-sums_U[sums_U < 0].sum()))

    @property
    def negated(self) -> Discordance:
        """The same with the sides changed over."""
        return Discordance(self.units, self.losses, self.wins)

    def p_at_most(self, value: float, n_units: int) -> float:
        """p-value of "the true difference is at most `value`" < 0, by its score test (Tango 1998).

        The variance is the one under that hypothesis: where next to nothing was seen to differ it
        does not vanish, as that of a t test does. Of units in which seeds or examples differ it is
        an upper bound.
        """
        n, wins, losses = n_units, self.wins, self.losses
        b = -wins - losses + (2 * n - wins + losses) * value
        c = -losses * value * (1.0 - value)
        loses = (math.sqrt(max(0.0, b * b - 8.0 * n * c)) - b) / (4.0 * n)
        variance = n * (2.0 * loses + value - value * value)
        return float(norm.sf((wins - losses - n * value) / math.sqrt(variance)))


@dataclass(frozen=True)
class OneSided:
    """A difference with what one-sided tests of it against any value need.

    `everywhere`: binary scores whose difference is the same on every one of `n_units` units, so
    that nothing varies (see `same_everywhere`). `discordance`: of binary scores.
    """

    difference: float
    components: VarianceComponents
    n_units: int
    everywhere: bool
    discordance: Discordance | None = None

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
            Discordance.of(sides),
        )

    @property
    def negated(self) -> OneSided:
        """The same with the sides changed over."""
        other = self.discordance and self.discordance.negated
        return replace(self, difference=-self.difference, discordance=other)

    def p_at_most(self, value: float) -> float:
        """p-value of "the true difference is at most `value`"; NaN if nothing varies.

        That of the t statistic; of a loss (`value` below 0) where few units differ no less than
        that of the score test. Where differences are the same everywhere it is the level at which
        Clopper-Pearson's bound reaches `value`.
        """
        if self.everywhere:
            if value >= self.difference:
                return 1.0
            share = min(1.0, (self.difference - value) / (1.0 + self.difference))
            return float((1.0 - share) ** self.n_units)
        above = self.difference - value
        half = self.components.p_value(above) / 2.0
        p = half if above > 0.0 else 1.0 - half
        few = self.discordance
        if value < 0.0 and few is not None and few.units < FEW_DISCORDANT:
            return max(p, few.p_at_most(value, self.n_units))
        return p


def same_everywhere(sides: Sides, standard_error: float) -> bool:
    """Whether binary scores differ by the same -1, 0 or 1 on every example."""
    seen = sides.differences
    equal = float(np.ptp(seen)) == 0.0 and standard_error == 0.0
    binary = is_binary(sides.a.scores) and is_binary(sides.b.scores)
    return bool(equal and binary and seen.flat[0] in (-1.0, 0.0, 1.0))
