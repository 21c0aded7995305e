"""The same resamples for many pairs at once: pairs on the same units share one matrix product."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sizewise.statistics.arrays import FloatArray
from sizewise.statistics.bootstrap import example_stream, interval_over_levels
from sizewise.statistics.interval import Interval
from sizewise.statistics.resampling import bootstrap_means
from sizewise.statistics.sides import Sides

# Pairs per matrix product: replicates take n_resamples × this × 8 bytes.
BATCH_PAIRS = 256


def batches_of(pairs: Sequence[Sides]) -> list[list[int]]:
    """Positions of pairs with identical units, in batches of at most BATCH_PAIRS."""
    by_units: dict[bytes, list[int]] = {}
    for position, sides in enumerate(pairs):
        weights = sides.units.weights
        key = sides.units.index.tobytes() + (b"" if weights is None else weights.tobytes())
        by_units.setdefault(key, []).append(position)
    return [
        positions[start : start + BATCH_PAIRS]
        for positions in by_units.values()
        for start in range(0, len(positions), BATCH_PAIRS)
    ]


def differences_of(pairs: Sequence[Sides], positions: Sequence[int]) -> FloatArray:
    """Seed-averaged differences of the pairs at `positions`, [C, N]."""
    return np.stack([pairs[p].differences for p in positions])


def difference_intervals(
    pairs: Sequence[Sides], *, level: float = 0.95, n_resamples: int = 10_000, seed: int = 0
) -> list[Interval]:
    """Interval of every pair's difference, each as `bootstrap_difference` gives it alone."""
    found: dict[int, Interval] = {}
    for positions in batches_of(pairs):
        units = pairs[positions[0]].units
        rows = differences_of(pairs, positions)
        means_RC = bootstrap_means(rows, units, n_resamples, example_stream(seed))
        for column, position in enumerate(positions):
            found[position] = interval_over_levels(
                pairs[position], means_RC[:, column], level, seed
            )
    return [found[position] for position in range(len(pairs))]
