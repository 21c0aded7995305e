"""Joint bootstrap replicates of several mean scores on the same examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sizewise.errors import StatisticsError
from sizewise.statistics.arrays import FloatArray, fraction, positive_count, same_length
from sizewise.statistics.bootstrap import example_stream, seed_stream
from sizewise.statistics.hierarchical import seed_deviations
from sizewise.statistics.interval import t_stretch
from sizewise.statistics.resampling import bootstrap_means
from sizewise.statistics.sides import MINIMUM_SEEDS, side_of
from sizewise.statistics.units import Groups, units_of, weighted


@dataclass(frozen=True)
class JointReplicates:
    """Means [K] over seeds and examples, and their replicates [R, K].

    `seeds_vary` [K]: whether a row's seeds were resampled (from five on) or are fixed.
    """

    means: FloatArray
    replicates: FloatArray
    seeds_vary: tuple[bool, ...]


def joint_replicates(
    rows: Sequence[ArrayLike],
    groups: Groups | None = None,
    *,
    level: float = 0.95,
    n_resamples: int = 2_000,
    seed: int = 0,
    minimum_seeds: int = MINIMUM_SEEDS,
    weights: ArrayLike | None = None,
) -> JointReplicates:
    """Resample examples (whole groups) once for all rows, each [N] or [S, N] on the same N.

    Rows with at least `minimum_seeds` seeds get resampled seeds too, each row its own, with
    unbiased variance and stretched to the t quantile of `level` with S − 1 degrees of freedom
    (conservative). Quantiles of any function of the replicates are its percentile interval.
    """
    fraction(level, "level")
    positive_count(n_resamples, "n_resamples")
    if not rows:
        raise StatisticsError("No scores were passed; nothing can be resampled.")
    units = weighted(units_of(groups, np.shape(rows[0])[-1]), weights)
    sides = [
        side_of(row, f"scores of row {number}", units.weights) for number, row in enumerate(rows)
    ]
    for number, side in enumerate(sides):
        same_length(sides[0].scores, side.scores, f"rows 0 and {number}")
    averages_KN = np.stack([side.averages for side in sides])
    if units.count < 2:
        raise StatisticsError("All examples are one unit; an interval needs at least 2 units.")
    replicates_RK = bootstrap_means(averages_KN, units, n_resamples, example_stream(seed))
    vary = tuple(s.trained_by_seed and s.n_seeds >= max(minimum_seeds, 2) for s in sides)
    rng = seed_stream(seed)
    for column, side in enumerate(sides):
        if vary[column]:
            stretch = t_stretch(side.n_seeds - 1, level)
            means_S = side.scores.mean(axis=1)
            replicates_RK[:, column] += stretch * seed_deviations(means_S, n_resamples, rng)
    return JointReplicates(averages_KN.mean(axis=1), replicates_RK, vary)
