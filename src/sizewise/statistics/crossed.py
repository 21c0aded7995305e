"""Variance of a mean over examples and seeds, both seen as samples (crossed random effects).

Model of the score of seed s on example i: mean + seed_s + example_i + residual_si. Seeds of two
sides are independent; the examples are the same on both. This is the design of radiology reader
studies (readers × cases), whose estimator is used here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from sizewise.statistics.arrays import FloatArray
from sizewise.statistics.resampling import Units


@dataclass(frozen=True)
class VarianceComponents:
    """Parts of the variance of an estimated mean (or difference of means).

    `examples`: share of the sampled examples; `seeds`: one share per side with random seeds
    (residual included); `examples_raw`: the examples' share before the residual was taken out;
    `degrees_of_freedom`: of the t distribution of estimate / standard error (`few_seeds`).
    """

    examples: float
    seeds: tuple[float, ...]
    examples_raw: float
    degrees_of_freedom: float

    @property
    def standard_error(self) -> float:
        return math.sqrt(self.examples + sum(self.seeds))

    @property
    def shrinkage(self) -> float:
        """Factor that brings deviations of the seed-averaged examples to their own share."""
        return math.sqrt(self.examples / self.examples_raw) if self.examples_raw > 0.0 else 0.0


def variance_components(
    average_N: FloatArray, seed_scores: Sequence[FloatArray], units: Units
) -> VarianceComponents:
    """Split the variance of the mean of `average_N` into examples' and seeds' shares.

    `average_N`: seed-averaged scores (or differences) per example; `seed_scores`: for each side
    whose seeds are random its matrix [S, N], S ≥ 2; empty for a result that is conditional on
    the seeds. Variances add as in Satterthwaite (1946, Biometrics Bulletin 2) with the examples'
    part cut at 0 and degrees of freedom as in Hillis (2007, Statistics in Medicine 26).
    Every side's mean square over seeds already holds its residual, so the residual is taken out
    of the examples' part, which would count it again.
    """
    raw = float(units.standard_error(average_N[None, :])[0] ** 2)
    shares: list[float] = []
    twice_counted = 0.0
    for scores_SN in seed_scores:
        n_seeds = scores_SN.shape[0]
        shares.append(float(np.var(scores_SN.mean(axis=1), ddof=1)) / n_seeds)
        residual_SU = units.influence(scores_SN - scores_SN.mean(axis=0, keepdims=True))
        mean_square = np.square(residual_SU).sum() / ((n_seeds - 1) * (units.count - 1))
        twice_counted += float(mean_square) / (n_seeds * units.count)
    examples = max(0.0, raw - twice_counted)
    weights = [(examples, units.count - 1)]
    for share, scores_SN in zip(shares, seed_scores, strict=True):
        df = scores_SN.shape[0] - 1
        weights.append((share * few_seeds(df), df))
    return VarianceComponents(examples, tuple(shares), raw, satterthwaite(weights))


# The seeds' variance may be larger than it looks; with this confidence it is not.
UPPER = 0.7


def few_seeds(df: int) -> float:
    """Upper confidence limit of a variance with `df` degrees of freedom, as a multiple of it.

    Satterthwaite's degrees of freedom take the shares as known. A seeds' share that two or three
    seeds show too small by chance lets them jump to those of the examples, and intervals cover
    87 % (two seeds) and 92 % (three). Therefore the seeds' shares enter them, but not the standard
    error, at their upper limit: 6.7 times for two seeds, 2.8 for three, 1 in the limit of many.
    What this gives is measured in docs/statistics.md.
    """
    return float(df / special.chdtri(df, UPPER))


def satterthwaite(variances: Sequence[tuple[float, int]]) -> float:
    """Degrees of freedom of a sum of (variance, its degrees of freedom); their sum if all are 0."""
    total = sum(v for v, _ in variances)
    if total <= 0.0:
        return float(sum(df for _, df in variances))
    return 1.0 / sum((v / total) ** 2 / df for v, df in variances)


def t_test_p_value(estimate: float, components: VarianceComponents) -> float:
    """Two-sided p-value of a mean of 0 over examples and seeds; NaN if nothing varies."""
    error = components.standard_error
    if error == 0.0:
        return math.nan
    return float(2.0 * special.stdtr(components.degrees_of_freedom, -abs(estimate) / error))
