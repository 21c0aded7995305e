"""Number of training examples at which a tuned model overtakes a fixed level of quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sizewise.errors import StatisticsError
from sizewise.statistics.arrays import FloatArray, finite
from sizewise.statistics.bootstrap import Interval, joint_replicates, order_interval
from sizewise.statistics.resampling import Groups

REACHED = "reached"
AT_SMALLEST = "already at the smallest measured size"
NOT_REACHED = "not reached within the measured range"


@dataclass(frozen=True)
class Overtaking:
    """Where a learning curve crosses a level for good.

    `examples_needed`: interpolated number of training examples; None unless `status` is
    "reached". `interval`: its bootstrap interval within the measured range; a low end at the
    smallest size means "or fewer", a high end of infinity "not within the measured range".
    `share_reached`: share of the resamples in which the level is reached at all.
    """

    sizes: tuple[float, ...]
    means: tuple[float, ...]
    level_mean: float
    status: str
    examples_needed: float | None
    interval: Interval
    share_reached: float


def overtaking_size(
    sizes: ArrayLike,
    curve: Sequence[ArrayLike],
    level_scores: ArrayLike,
    groups: Groups | None = None,
    *,
    higher_is_better: bool = True,
    level: float = 0.95,
    n_resamples: int = 2_000,
    seed: int = 0,
    weights: ArrayLike | None = None,
) -> Overtaking:
    """Size of the training set from which the curve stays at or above the other model's mean.

    `sizes` [K] rising (0 may be the untouched base); `curve`: per size the scores [N] or [S, N]
    of the tuned model; `level_scores` [N] or [S, N]: the model to overtake, same test examples.
    Interpolated linearly in log(1 + size) between measured sizes, never beyond. The last crossing
    counts: a curve that falls below again has not overtaken. Examples (whole groups) are
    resampled jointly, seeds from two on. `weights` [N]: how much each example counts.
    """
    grid = _checked_sizes(sizes, len(curve))
    joint = joint_replicates(
        [*curve, level_scores],
        groups, level=level, n_resamples=n_resamples, seed=seed, weights=weights,
    )  # fmt: skip
    sign = 1.0 if higher_is_better else -1.0
    gaps_K = sign * (joint.means[:-1] - joint.means[-1])
    gaps_RK = sign * (joint.replicates[:, :-1] - joint.replicates[:, -1:])
    found = float(_crossings(grid, gaps_K[None, :])[0])
    crossed_R = np.clip(_crossings(grid, gaps_RK), grid[0], np.inf)
    status = _status(found, float(grid[0]))
    return Overtaking(
        sizes=tuple(float(s) for s in grid),
        means=tuple(float(m) for m in joint.means[:-1]),
        level_mean=float(joint.means[-1]),
        status=status,
        examples_needed=found if status == REACHED else None,
        interval=order_interval(crossed_R, crossed_R, level),
        share_reached=float(np.mean(np.isfinite(crossed_R))),
    )


def _checked_sizes(sizes: ArrayLike, n_curves: int) -> FloatArray:
    grid = finite(sizes, "sizes", 1)
    if grid.size != n_curves:
        raise StatisticsError(f"{grid.size} sizes for {n_curves} points of the curve.")
    if grid.size < 2 or grid[0] < 0.0 or np.any(np.diff(grid) <= 0.0):
        raise StatisticsError(f"sizes {grid.tolist()} must be 2 or more rising numbers from 0 on.")
    return grid


def _status(found: float, smallest: float) -> str:
    if found == np.inf:
        return NOT_REACHED
    return AT_SMALLEST if found < smallest else REACHED


def _crossings(grid_K: FloatArray, gaps_RK: FloatArray) -> FloatArray:
    """Sizes from which gaps stay ≥ 0, [R]; −inf if they always are, +inf if not at the end."""
    log_sizes_K = np.log1p(grid_K)
    below = gaps_RK < 0.0
    n_sizes = log_sizes_K.size
    last = n_sizes - 1 - np.argmax(below[:, ::-1], axis=1)
    last = np.where(below.any(axis=1), last, -1)
    left = np.clip(last, 0, n_sizes - 2)
    rows = np.arange(gaps_RK.shape[0])
    low, high = gaps_RK[rows, left], gaps_RK[rows, left + 1]
    crosses = (last >= 0) & (last < n_sizes - 1)
    share = np.divide(-low, high - low, out=np.zeros_like(low), where=crosses)
    log_size = log_sizes_K[left] + share * np.diff(log_sizes_K)[left]
    size = np.clip(np.expm1(log_size), grid_K[left], grid_K[left + 1])
    return np.where(last < 0, -np.inf, np.where(crosses, size, np.inf))
