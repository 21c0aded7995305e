"""Confidence intervals from bootstrap replicates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from sizewise.errors import StatisticsError
from sizewise.statistics.arrays import FloatArray, fraction


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval; `level` is its nominal coverage, such as 0.95."""

    low: float
    high: float
    level: float
    method: str

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise StatisticsError(f"An interval from {self.low} to {self.high} is not ordered.")

    @property
    def excludes_zero(self) -> bool:
        """True if the whole interval lies on one side of 0."""
        return self.low > 0.0 or self.high < 0.0

    def negated(self) -> Interval:
        """Return the interval of minus the quantity."""
        return Interval(-self.high, -self.low, self.level, self.method)


def percentile_interval(replicates_R: FloatArray, level: float = 0.95) -> Interval:
    """Percentile interval (Efron 1979): the (1 ± level)/2 quantiles of the replicates."""
    tail = (1.0 - fraction(level, "level")) / 2.0
    low, high = np.quantile(replicates_R, [tail, 1.0 - tail])
    return Interval(float(low), float(high), level, "percentile bootstrap")


def bca_interval(
    replicates_R: FloatArray, estimate: float, jackknife_U: FloatArray, level: float = 0.95
) -> Interval:
    """Bias-corrected and accelerated interval (Efron 1987, JASA 82).

    `jackknife_U` holds the estimate with each of the U units left out. Replicates that are all
    equal give that value as both ends.
    """
    tail = (1.0 - fraction(level, "level")) / 2.0
    if np.ptp(replicates_R) == 0.0:
        return Interval(estimate, estimate, level, "BCa bootstrap")
    below = np.mean(replicates_R < estimate) + 0.5 * np.mean(replicates_R == estimate)
    bias = special.ndtri(np.clip(below, 1.0 / replicates_R.size, 1.0 - 1.0 / replicates_R.size))
    spread = jackknife_U.mean() - jackknife_U
    scale = np.square(spread).sum() ** 1.5
    acceleration = np.power(spread, 3).sum() / (6.0 * scale) if scale > 0.0 else 0.0
    z = special.ndtri(np.array([tail, 1.0 - tail])) + bias
    shares = special.ndtr(bias + z / (1.0 - acceleration * z))
    low, high = np.quantile(replicates_R, np.sort(shares))
    return Interval(float(low), float(high), level, "BCa bootstrap")


def t_stretch(degrees_of_freedom: float, level: float) -> float:
    """Ratio of the t quantile to the normal one at the ends of a two-sided interval."""
    upper = (1.0 + fraction(level, "level")) / 2.0
    return float(special.stdtrit(degrees_of_freedom, upper) / special.ndtri(upper))


def expanded_interval(
    deviations_R: FloatArray,
    estimate: float,
    degrees_of_freedom: float,
    level: float = 0.95,
    method: str = "bootstrap, t-expanded",
) -> Interval:
    """Percentile interval whose deviations are stretched from a normal to a t quantile.

    `deviations_R` are replicates minus estimate, of unbiased variance. A percentile interval is
    too narrow for few units because its tails are the normal's; the remedy is that of
    Hesterberg (2015, The American Statistician 69, "expanded percentile interval"), applied to the
    deviations instead of to the nominal level, so that it also works for the few distinct
    resamples that five seeds have.
    """
    stretch = t_stretch(degrees_of_freedom, level)
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(deviations_R, [tail, 1.0 - tail]) * stretch
    return Interval(estimate + float(low), estimate + float(high), level, method)
