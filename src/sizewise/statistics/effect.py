"""Effect sizes of paired comparisons, and the smallest effect a design can detect."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from sizewise.errors import StatisticsError
from sizewise.statistics.arrays import finite, fraction
from sizewise.statistics.bootstrap import Interval


@dataclass(frozen=True)
class EffectSize:
    """Size of a paired difference A − B.

    `difference` is in units of the score. `cohens_d_z` is the mean of
    the differences over their standard deviation (infinite if all are equal and not 0). For
    binary scores: `odds_ratio` of the discordant pairs with its interval (None without any), and
    Cohen's h of the two proportions; None for other scores.
    """

    difference: float
    cohens_d_z: float
    odds_ratio: float | None = None
    odds_ratio_interval: Interval | None = None
    cohens_h: float | None = None


def cohens_d_z(differences: ArrayLike) -> float:
    """Mean of paired differences [N] over their standard deviation (Cohen 1988, section 2.3.5)."""
    values = finite(differences, "differences", 1)
    mean = float(values.mean())
    if np.ptp(values) == 0.0:
        return 0.0 if mean == 0.0 else math.copysign(math.inf, mean)
    return mean / float(values.std(ddof=1))


def cohens_h(proportion_a: float, proportion_b: float) -> float:
    """2·asin(√a) − 2·asin(√b) (Cohen 1988, chapter 6)."""
    return 2.0 * (math.asin(math.sqrt(proportion_a)) - math.asin(math.sqrt(proportion_b)))


def discordant_odds_ratio(
    only_a: int, only_b: int, level: float = 0.95
) -> tuple[float | None, Interval | None]:
    """Conditional odds ratio only_a / only_b of McNemar's table with its exact interval.

    The interval is Clopper–Pearson's of only_a among the discordant pairs (quantiles of the beta
    distribution; SciPy's search for them is a thousand times slower), turned into odds.
    Infinite if only_b is 0; (None, None) without discordant pairs.
    """
    n = only_a + only_b
    if n == 0:
        return None, None
    ratio = only_a / only_b if only_b else math.inf
    tail = (1.0 - fraction(level, "level")) / 2.0
    low = _odds(float(special.betaincinv(only_a, only_b + 1, tail))) if only_a else 0.0
    high = _odds(float(special.betaincinv(only_a + 1, only_b, 1.0 - tail))) if only_b else math.inf
    return ratio, Interval(low, high, level, "Clopper-Pearson, as odds")


def _odds(share: float) -> float:
    return share / (1.0 - share) if share < 1.0 else math.inf


def minimum_detectable_effect(
    standard_error: float,
    degrees_of_freedom: float,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    alternative: str = "two-sided",
) -> float:
    """Smallest true difference that a t test with this standard error finds with `power`.

    In units of the score, and the same for either side being better. The power is that of the
    noncentral t distribution, as in statsmodels' TTestPower (a hundred times slower). For
    clustered designs pass the clustered standard error and clusters − 1; for a family of m tests
    alpha / m. `alternative`: "two-sided", or "one-sided" for a direction fixed beforehand. NaN
    if the standard error is 0 or NaN: without any variation nothing is known about it.
    """
    fraction(alpha, "alpha")
    fraction(power, "power")
    if alternative not in ("two-sided", "one-sided"):
        raise StatisticsError(f"alternative={alternative!r}: use two-sided or one-sided.")
    if alpha >= power:
        raise StatisticsError(f"power={power} must exceed alpha={alpha}.")
    if degrees_of_freedom < 1.0:
        raise StatisticsError("Fewer than 1 degree of freedom; pass more examples or groups.")
    if not standard_error > 0.0:
        return math.nan
    tails = 2 if alternative == "two-sided" else 1
    return standard_error * _detectable_noncentrality(degrees_of_freedom, alpha, power, tails)


@lru_cache(maxsize=4096)
def _detectable_noncentrality(df: float, alpha: float, power: float, tails: int) -> float:
    """Noncentrality (difference in standard errors) at which the t test has `power`."""
    critical = float(special.stdtrit(df, 1.0 - alpha / tails))

    def shortfall(noncentrality: float) -> float:
        found = 1.0 - special.nctdtr(df, noncentrality, critical)
        if math.isnan(found):
            found = _upper_tail(df, noncentrality, critical)
        if tails == 2:
            # SciPy gives NaN where this tail, which is below Φ(−noncentrality), is too small.
            found += np.nan_to_num(special.nctdtr(df, noncentrality, -critical))
        return float(power - found)

    upper = 2.0
    while shortfall(upper) > 0.0:
        upper *= 2.0
    return float(optimize.brentq(shortfall, 0.0, upper, xtol=1e-10))


def _upper_tail(df: float, noncentrality: float, critical: float) -> float:
    """P(t > critical) as a mean over the estimated standard deviation.

    SciPy's noncentral t is not a number for the one or two degrees of freedom of few seeds.
    """
    deviations = np.sqrt(special.chdtri(df, (np.arange(4000) + 0.5) / 4000) / df)
    return float(special.ndtr(noncentrality - critical * deviations).mean())
