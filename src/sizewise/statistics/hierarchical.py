"""Hierarchical bootstrap over examples (or groups of them) and seeds as crossed levels.

Drawing rows and columns of the seeds × examples table independently is the bootstrap of crossed
designs (McCullagh 2000, Bernoulli 6; Owen 2007, Annals of Applied Statistics 1, "The pigeonhole
bootstrap"). Used as it is, it counts the residual three times and the seeds' variance only
(S − 1)/S times, with normal instead of t tails: for five seeds the interval is far too narrow
where seeds matter, and too wide where the residual does. Hence
  1. seeds' and examples' deviations are resampled as additive effects,
  2. rescaled to unbiased variances (S/(S−1): Rao & Wu 1988, JASA 83; the residual is taken out
     of the examples' effects), and
  3. stretched to the t quantile with Satterthwaite's degrees of freedom.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sizewise.statistics.arrays import FloatArray
from sizewise.statistics.crossed import VarianceComponents
from sizewise.statistics.interval import Interval, expanded_interval
from sizewise.statistics.resampling import bootstrap_weights
from sizewise.statistics.units import Units


def seed_deviations(seed_means_S: FloatArray, n: int, rng: np.random.Generator) -> FloatArray:
    """Deviations [n] of resampled seed averages from their mean, of unbiased variance."""
    n_seeds = seed_means_S.size
    centred = (seed_means_S - seed_means_S.mean()) * math.sqrt(n_seeds / (n_seeds - 1))
    return np.asarray(bootstrap_weights(n_seeds, n, rng) @ centred / n_seeds)


def hierarchical_deviations(
    example_deviations_R: FloatArray,
    seed_scores: Sequence[tuple[float, FloatArray]],
    components: VarianceComponents,
    units: Units,
    rng: np.random.Generator,
) -> FloatArray:
    """Bootstrap deviations of the estimate over examples and seeds, [R].

    `example_deviations_R`: bootstrap means minus estimate of the seed-averaged examples;
    `seed_scores`: (sign, scores [S, N]) of every side with random seeds.
    """
    rescale = math.sqrt(units.count / (units.count - 1)) * components.shrinkage
    deviations_R = example_deviations_R * rescale
    for sign, scores_SN in seed_scores:
        means_S = scores_SN.mean(axis=1)
        deviations_R = deviations_R + sign * seed_deviations(means_S, deviations_R.size, rng)
    return deviations_R


def hierarchical_interval(
    estimate: float,
    deviations_R: FloatArray,
    components: VarianceComponents,
    n_random_sides: int,
    level: float,
) -> Interval:
    """Turn `hierarchical_deviations` into the interval, named after the levels that vary."""
    levels = "hierarchical bootstrap over seeds and" if n_random_sides else "bootstrap over"
    method = f"{levels} examples, t-expanded"
    df = components.degrees_of_freedom
    return expanded_interval(deviations_R, estimate, df, level, method)
