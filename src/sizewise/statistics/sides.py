"""Two sides of a paired comparison, checked, with the level at which their seeds are treated."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from sizewise.errors import StatisticsError
from sizewise.statistics.arrays import FloatArray, same_length, seeds_by_examples
from sizewise.statistics.resampling import Groups, Units, units_of, weighted

# A side with fewer seeds is taken as given: one seed shows no variation.
MINIMUM_SEEDS = 2
# Scores that differ by less, relative to their size, are the same: rounding is no evidence.
SAME = 1e-7


@dataclass(frozen=True)
class SeedSpread:
    """Mean scores of one side's seeds, [S], in the order they were passed.

    `repeats` is how many identical runs were folded into one (greedy decoding of an untouched
    model gives the same scores whatever the seed); 1 if none.
    """

    means: tuple[float, ...]
    repeats: int = 1

    @property
    def low(self) -> float:
        return min(self.means)

    @property
    def high(self) -> float:
        return max(self.means)


@dataclass(frozen=True)
class Side:
    """Scores [S, N] of one side; `trained_by_seed` is False for a model without a seed."""

    scores: FloatArray
    trained_by_seed: bool
    repeats: int = 1

    @property
    def n_seeds(self) -> int:
        return int(self.scores.shape[0])

    @cached_property
    def averages(self) -> FloatArray:
        return self.scores.mean(axis=0)

    @property
    def spread(self) -> SeedSpread:
        means = tuple(float(m) for m in self.scores.mean(axis=1))
        return SeedSpread(means, self.repeats)


def side_of(scores: ArrayLike, name: str, weights: FloatArray | None = None) -> Side:
    """Check one side. [N]: no seed at all; [S, N]: S seeds. Scores are multiplied by `weights`.

    Two or more identical rows are one deterministic run: no seed made any difference.
    """
    matrix = seeds_by_examples(scores, name)
    if weights is not None:
        matrix = matrix * weights
    if matrix.shape[0] > 1 and np.all(matrix == matrix[0]):
        return Side(matrix[:1], trained_by_seed=False, repeats=matrix.shape[0])
    return Side(matrix, trained_by_seed=np.ndim(scores) == 2)


@dataclass(frozen=True)
class Sides:
    """A checked pair on the same N examples."""

    a: Side
    b: Side
    units: Units
    paired_seeds: bool
    minimum_seeds: int = MINIMUM_SEEDS

    @cached_property
    def differences(self) -> FloatArray:
        """Seed-averaged score of A minus that of B per example, [N]; 0 where only rounding is."""
        found = self.a.averages - self.b.averages
        size = np.maximum(np.abs(self.a.averages), np.abs(self.b.averages))
        return np.where(np.abs(found) <= SAME * size, 0.0, found)

    def varies(self, side: Side) -> bool:
        """Whether the seeds of a side are a sample (enough of them) and not taken as given."""
        return side.trained_by_seed and side.n_seeds >= self.minimum_seeds

    @property
    def seeds_are_random(self) -> bool:
        """Whether the seeds of at least one side are a level of their own."""
        return self.varies(self.a) or self.varies(self.b)

    @property
    def random_scores(self) -> list[tuple[float, FloatArray]]:
        """(Sign, scores [S, N]) of every level of seeds that varies; empty if conditional."""
        if not self.seeds_are_random:
            return []
        if self.paired_seeds:
            return [(1.0, self.a.scores - self.b.scores)]
        both = [(1.0, self.a), (-1.0, self.b)]
        return [(sign, side.scores) for sign, side in both if self.varies(side)]

    @property
    def seed_difference_range(self) -> tuple[float, float]:
        """Lowest and highest difference of seed means (per seed if seeds are paired)."""
        a, b = self.a.spread, self.b.spread
        if self.paired_seeds:
            differences = [x - y for x, y in zip(a.means, b.means, strict=True)]
            return min(differences), max(differences)
        return a.low - b.high, a.high - b.low


def sides_of(
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    groups: Groups | None = None,
    *,
    paired_seeds: bool = False,
    minimum_seeds: int = MINIMUM_SEEDS,
    weights: ArrayLike | None = None,
) -> Sides:
    """Check two sides and decide whether seeds are a random level or fixed.

    The seeds of a side are random if there are at least `minimum_seeds` of them (≥ 2), else given.
    `paired_seeds` is for sides whose s-th seeds share a source of variation; both need the same S.
    `weights` [N]: how much each example counts in the mean of either side.
    Raises StatisticsError for unequal examples, fewer than two units, or unpaired seeds.
    """
    if minimum_seeds < 2:
        raise StatisticsError(f"minimum_seeds={minimum_seeds}: one seed shows no variation; use 2+")
    first, second = seeds_by_examples(scores_a, "scores_a"), seeds_by_examples(scores_b, "scores_b")
    same_length(first, second, "scores_a and scores_b")
    units = weighted(units_of(groups, first.shape[1]), weights)
    a = side_of(scores_a, "scores_a", units.weights)
    b = side_of(scores_b, "scores_b", units.weights)
    paired = paired_seeds and a.trained_by_seed and b.trained_by_seed
    if paired and a.n_seeds != b.n_seeds:
        raise StatisticsError(
            f"paired_seeds: {a.n_seeds} seeds on one side and {b.n_seeds} on the other; pass the "
            "same seeds in the same order, or paired_seeds=False."
        )
    if units.count < 2:
        raise StatisticsError("All examples are one unit; an interval needs at least 2 units.")
    return Sides(a, b, units, paired, minimum_seeds)
