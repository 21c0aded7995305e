"""Resampling units (examples or groups), and resampled means and sign flips in bounded memory."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

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


# Elements of one block of weights (float64: 16 MiB).
BLOCK_ELEMENTS = 1 << 21


def _block_rows(n_rows: int, width: int) -> Iterator[tuple[int, int]]:
    step = max(1, BLOCK_ELEMENTS // width)
    for start in range(0, n_rows, step):
        yield start, min(start + step, n_rows)


def bootstrap_weights(n_units: int, n_rows: int, rng: np.random.Generator) -> FloatArray:
    """Multinomial counts [n_rows, n_units]: each row draws n_units units with replacement."""
    drawn = rng.integers(0, n_units, size=(n_rows, n_units))
    drawn += np.arange(n_rows)[:, None] * n_units
    counts = np.bincount(drawn.ravel(), minlength=n_rows * n_units)
    return counts.reshape(n_rows, n_units).astype(np.float64)


def bootstrap_means(
    values_CN: FloatArray, units: Units, n_resamples: int, rng: np.random.Generator
) -> FloatArray:
    """Means over examples of C columns in R bootstrap resamples of units, [R, C].

    With clusters whole clusters are drawn, and the mean is the drawn sum over the drawn size
    (the drawn weight, where examples have weights)
    (cluster bootstrap; Davison & Hinkley 1997, Bootstrap Methods, section 3.8).
    """
    return _means(values_CN, units, _weights(units.count, n_resamples, rng))


def means_of_seed(values_CN: FloatArray, units: Units, n_resamples: int, seed: int) -> FloatArray:
    """`bootstrap_means` with the seed's random stream for examples; its weights are kept."""
    elements = n_resamples * units.count
    if elements > BLOCK_ELEMENTS * MOST_BLOCKS:
        return bootstrap_means(values_CN, units, n_resamples, np.random.default_rng([seed, 0]))
    kept = _few_kept if elements > BLOCK_ELEMENTS else _many_kept
    blocks = kept(units.count, n_resamples, seed)
    return _means(values_CN, units, (counts.astype(np.float64) for counts in blocks))


def _weights(n_units: int, n_resamples: int, rng: np.random.Generator) -> Iterator[FloatArray]:
    """`bootstrap_weights` of R rows altogether, in blocks [r, U]."""
    for start, stop in _block_rows(n_resamples, n_units):
        yield bootstrap_weights(n_units, stop - start, rng)


Counts = NDArray[np.unsignedinteger[Any]]


def _counts(n_units: int, n_resamples: int, seed: int) -> tuple[Counts, ...]:
    """Blocks of weights, mostly in a byte each: a report asks for the same ones again and again."""
    blocks = _weights(n_units, n_resamples, np.random.default_rng([seed, 0]))
    return tuple(block.astype(np.min_scalar_type(int(block.max()))) for block in blocks)


# Small and large ones are kept apart; either kind takes 64 MiB at most.
MOST_BLOCKS = 8
_many_kept, _few_kept = lru_cache(maxsize=32)(_counts), lru_cache(maxsize=4)(_counts)


def _means(values_CN: FloatArray, units: Units, blocks: Iterable[FloatArray]) -> FloatArray:
    """Means over examples, [R, C], for `blocks` of weights [r, U] with R rows altogether."""
    sums_UC = units.sums(values_CN).T
    means = []
    for weights in blocks:
        drawn = weights @ units.sizes if units.uneven else np.full(len(weights), units.count)
        means.append((weights @ sums_UC) / drawn[:, None])
    return np.concatenate(means)


def sign_flip_sums(
    sums_UC: FloatArray, n_resamples: int, rng: np.random.Generator
) -> Iterator[FloatArray]:
    """Yield blocks [r, C] of unit sums added up with random signs; R rows altogether."""
    n_units = sums_UC.shape[0]
    total_C = sums_UC.sum(axis=0)
    for start, stop in _block_rows(n_resamples, n_units):
        n_bits = (stop - start) * n_units
        packed = np.frombuffer(rng.bytes(-(-n_bits // 8)), dtype=np.uint8)
        plus = np.unpackbits(packed, count=n_bits).reshape(stop - start, n_units)
        yield 2.0 * (plus.astype(np.float64) @ sums_UC) - total_C


def all_sign_patterns(n_units: int) -> FloatArray:
    """All 2**U sign patterns, [2**U, U] of ±1, the all-plus pattern first."""
    patterns = np.arange(1 << n_units)[:, None] >> np.arange(n_units)[None, :]
    return np.asarray(1.0 - 2.0 * (patterns & 1), dtype=np.float64)
