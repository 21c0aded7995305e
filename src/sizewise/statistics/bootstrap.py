"""Bootstrap intervals of a mean score and of a paired difference of mean scores."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from sizewise.errors import StatisticsError
from sizewise.statistics.arrays import FloatArray, fraction, positive_count
from sizewise.statistics.crossed import variance_components
from sizewise.statistics.hierarchical import hierarchical_deviations, hierarchical_interval
from sizewise.statistics.interval import Interval, bca_interval, percentile_interval
from sizewise.statistics.resampling import bootstrap_means
from sizewise.statistics.sides import MINIMUM_SEEDS, Sides, sides_of
from sizewise.statistics.units import Groups, Units

Method = Literal["expanded", "percentile", "bca"]
N_RESAMPLES = 10_000


def example_stream(seed: int) -> np.random.Generator:
    """Random stream of the resampled examples."""
    return np.random.default_rng([seed, 0])


def seed_stream(seed: int) -> np.random.Generator:
    """Random stream of the resampled seeds."""
    return np.random.default_rng([seed, 1])


def bootstrap_mean(
    scores: ArrayLike,
    groups: Groups | None = None,
    *,
    method: Method = "expanded",
    level: float = 0.95,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    minimum_seeds: int = MINIMUM_SEEDS,
) -> Interval:
    """Interval of the mean of `scores` [N] or [S, N] over the test examples.

    From `minimum_seeds` seeds on (method "expanded") seeds vary too; below, the interval is that
    of the seeds' average and conditional on them. `groups` [N]: whole groups are resampled.
    Raises StatisticsError for empty or non-finite scores or a single unit.
    """
    zeros = np.zeros(np.shape(scores)[-1:])
    sides = sides_of(scores, zeros, groups, minimum_seeds=minimum_seeds)
    return _interval(sides, method, level, n_resamples, seed)


def bootstrap_difference(
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    groups: Groups | None = None,
    *,
    method: Method = "expanded",
    level: float = 0.95,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    minimum_seeds: int = MINIMUM_SEEDS,
    paired_seeds: bool = False,
) -> Interval:
    """Interval of mean(A) − mean(B) on the same examples (paired bootstrap).

    Sides are [N] (a model without a seed) or [S, N]; the numbers of seeds may differ. See
    `bootstrap_mean` for seeds and groups, `sides_of` for `paired_seeds`.
    """
    sides = sides_of(
        scores_a, scores_b, groups, paired_seeds=paired_seeds, minimum_seeds=minimum_seeds
    )
    return _interval(sides, method, level, n_resamples, seed)


def _interval(sides: Sides, method: str, level: float, n_resamples: int, seed: int) -> Interval:
    fraction(level, "level")
    positive_count(n_resamples, "n_resamples")
    if method not in ("expanded", "percentile", "bca"):
        raise StatisticsError(f"method={method!r} is unknown; use expanded, percentile or bca.")
    differences = sides.differences
    rows = differences[None, :]
    means_R = bootstrap_means(rows, sides.units, n_resamples, example_stream(seed))[:, 0]
    if method == "percentile":
        return percentile_interval(means_R, level)
    if method == "bca":
        left_out = jackknife_means(differences, sides.units)
        return bca_interval(means_R, float(differences.mean()), left_out, level)
    return interval_over_levels(sides, means_R, level, seed)


def interval_over_levels(sides: Sides, means_R: FloatArray, level: float, seed: int) -> Interval:
    """Interval of the difference from its bootstrap means over examples, seeds added if random."""
    differences = sides.differences
    estimate = float(differences.mean())
    random = sides.random_scores
    components = variance_components(differences, [m for _, m in random], sides.units)
    deviations = hierarchical_deviations(
        means_R - estimate, random, components, sides.units, seed_stream(seed)
    )
    return hierarchical_interval(estimate, deviations, components, len(random), level)


def jackknife_means(values_N: FloatArray, units: Units) -> FloatArray:
    """Means with one unit left out, [U]."""
    sums_U = units.sums(values_N[None, :])[0]
    return np.asarray((values_N.sum() - sums_U) / (units.examples - units.sizes))
