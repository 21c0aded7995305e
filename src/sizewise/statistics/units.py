"""Resampling units: single examples, or the groups (clusters) that examples share."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sizewise.errors import StatisticsError
from sizewise.statistics.arrays import FloatArray, IntArray, finite

Groups = Sequence[Hashable] | NDArray[np.generic]


@dataclass(frozen=True)
class Units:
    """Which unit each of N examples belongs to, and how much each example counts.

    `index` [N] numbers the unit of each example from 0; `count` is the number of units U;
    `clustered` is True if at least one unit holds several examples. `weights` [N] have a mean of
    1; None counts all alike. Values that are passed in have been multiplied by their weights, so
    that their plain mean is the weighted mean (a ratio of sums, as bits per byte).
    """

    index: IntArray
    count: int
    clustered: bool
    weights: FloatArray | None = None

    @property
    def examples(self) -> int:
        """Number of examples N."""
        return int(self.index.size)

    @cached_property
    def sizes(self) -> FloatArray:
        """Examples (their weights) per unit, [U]."""
        found = np.bincount(self.index, weights=self.weights, minlength=self.count)
        return found.astype(np.float64)

    @property
    def uneven(self) -> bool:
        """Whether units count differently, so that a resample has a size of its own."""
        return self.clustered or self.weights is not None

    def sums(self, values_CN: FloatArray) -> FloatArray:
        """Sum `values_CN` [C, N] within units, giving [C, U]."""
        if not self.clustered:
            return values_CN
        sums_CU = np.zeros((values_CN.shape[0], self.count))
        for row, values in zip(sums_CU, values_CN, strict=True):
            row[:] = np.bincount(self.index, weights=values, minlength=self.count)
        return sums_CU

    def influence(self, values_CN: FloatArray) -> FloatArray:
        """Influence of each unit on the mean over examples, [C, U].

        Their plain mean is 0, and their variance / U is the variance of the mean (ratio
        estimator over clusters; Cochran 1977, Sampling Techniques, chapter 6).
        """
        means_CN = values_CN.mean(axis=1, keepdims=True)
        if self.weights is not None:
            means_CN = means_CN * self.weights
        return self.sums(values_CN - means_CN) * (self.count / self.examples)

    def standard_error(self, values_CN: FloatArray) -> FloatArray:
        """Standard error of the means over examples, [C]; NaN with a single unit."""
        if self.count < 2:
            return np.full(values_CN.shape[0], np.nan)
        squares_C = np.square(self.influence(values_CN)).sum(axis=1)
        return np.asarray(np.sqrt(squares_C / (self.count * (self.count - 1))))


def single_examples(n: int) -> Units:
    """Every example is its own unit."""
    return Units(index=np.arange(n, dtype=np.int64), count=n, clustered=False)


def units_of(groups: Groups | None, n: int) -> Units:
    """Number the groups of `n` examples in order of first appearance.

    `groups` holds one hashable key per example; None means independent examples. Groups that
    all hold one example are the same as None. A key of None, or NaN, raises StatisticsError:
    it would silently merge unrelated examples.
    """
    if groups is None:
        return single_examples(n)
    keys = list(groups)
    if len(keys) != n:
        raise StatisticsError(f"{len(keys)} groups for {n} examples; pass one group per example.")
    numbers: dict[Hashable, int] = {}
    index = np.empty(n, dtype=np.int64)
    for position, key in enumerate(keys):
        if key is None or key != key:
            raise StatisticsError(
                f"The group of example {position} is missing; give ungrouped examples a key of "
                "their own (such as the example id)."
            )
        index[position] = numbers.setdefault(key, len(numbers))
    if len(numbers) == n:
        return single_examples(n)
    return Units(index=index, count=len(numbers), clustered=True)


def weighted(units: Units, weights: ArrayLike | None) -> Units:
    """Let examples count by `weights` [N] (positive; only their proportions matter)."""
    if weights is None:
        return units
    values = finite(weights, "weights", 1)
    if values.size != units.examples:
        raise StatisticsError(f"{values.size} weights for {units.examples} examples.")
    if values.min() <= 0.0:
        raise StatisticsError("weights hold values that are not positive; leave such examples out.")
    return replace(units, weights=values / values.mean())
