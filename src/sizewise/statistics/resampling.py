"""Resampled means and sign flips for many score columns at once, in bounded memory.

One set of multinomial weights serves all columns: the resamples are a matrix product of
weights [R, U] and unit sums [U, C]. All columns see the same resamples, so joint statements
about several means (a difference, a curve) may be made from one call.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sizewise.statistics.arrays import FloatArray
from sizewise.statistics.units import Units

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
    sums_UC = units.sums(values_CN).T
    means_RC = np.empty((n_resamples, values_CN.shape[0]))
    for start, stop in _block_rows(n_resamples, units.count):
        weights = bootstrap_weights(units.count, stop - start, rng)
        drawn = weights @ units.sizes if units.uneven else np.full(stop - start, units.count)
        means_RC[start:stop] = (weights @ sums_UC) / drawn[:, None]
    return means_RC


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
