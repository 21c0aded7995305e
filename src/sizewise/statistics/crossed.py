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
from scipy import optimize, special

from sizewise.statistics.arrays import FloatArray
from sizewise.statistics.resampling import Units


@dataclass(frozen=True)
class VarianceComponents:
    """Parts of the variance of an estimated mean (or difference of means).

    `examples`: share of the sampled examples, with `examples_df` degrees of freedom; `seeds`: one
    (share, degrees of freedom) per side with random seeds (residual included); `examples_raw`: the
    examples' share before the residual was taken out.
    """

    examples: float
    examples_df: int
    seeds: tuple[tuple[float, int], ...]
    examples_raw: float

    @property
    def standard_error(self) -> float:
        """Standard error of the estimate."""
        return math.sqrt(self.examples + sum(share for share, _ in self.seeds))

    @property
    def degrees_of_freedom(self) -> float:
        """Those of a 95 % interval, see `df_at`."""
        return self.df_at(LEVEL)

    def df_at(self, alpha: float) -> float:
        """Degrees of freedom of the t distribution of estimate / standard error, at level `alpha`.

        Satterthwaite's, which take the shares as known. A seeds' share that two or three seeds
        show too small by chance lets them jump to those of the examples: 95 % intervals cover 87 %
        (two seeds) and 92 % (three), and the further out the worse. Therefore the seeds' shares
        enter them, but not the standard error, at an upper confidence limit (`few_seeds`).
        """
        shares = [(share * few_seeds(df, alpha), df) for share, df in self.seeds]
        return satterthwaite([(self.examples, self.examples_df), *shares])

    def p_value(self, estimate: float) -> float:
        """Two-sided p-value of a mean of 0 over examples and seeds; NaN if nothing varies.

        The level at which the interval ends at 0.
        """
        error = self.standard_error
        if error == 0.0:
            return math.nan
        t = -abs(estimate) / error
        plain = float(2.0 * special.stdtr(self.degrees_of_freedom, t))
        if plain >= LEVEL or not self.seeds:
            return plain

        def excess(log_p: float) -> float:
            p = math.exp(log_p)
            return float(2.0 * special.stdtr(self.df_at(p), t)) - p

        if excess(LOWEST) <= 0.0:
            return math.exp(LOWEST)
        return math.exp(optimize.brentq(excess, LOWEST, math.log(LEVEL), xtol=1e-9))

    def detectable(self, alpha: float, power: float) -> float:
        """Smallest true difference that the t test over examples and seeds finds with `power`.

        Few seeds mostly show less than their variance: their shares are put right by the median of
        chi-squared. What a study of this size will show varies too, and with it the standard error
        and the degrees of freedom of its test, so the power is averaged over that
        (independent chi-squared shares, each at the middles of `NODES` equal parts).
        """
        shares = [(s * df / float(special.chdtri(df, 0.5)), df) for s, df in self.seeds]
        parts = [(self.examples, self.examples_df), *shares]
        true_error = math.sqrt(sum(share for share, _ in parts))
        critical_K = self._critical_values(parts, alpha)

        def shortfall(difference: float) -> float:
            beyond = special.ndtr((difference - critical_K) / true_error)
            below = special.ndtr((-difference - critical_K) / true_error)
            return power - float((beyond + below).mean())

        highest = float(critical_K.max()) + 10.0 * true_error
        return float(optimize.brentq(shortfall, 0.0, highest, rtol=1e-9))

    @staticmethod
    def _critical_values(parts: Sequence[tuple[float, int]], alpha: float) -> FloatArray:
        """Differences [K] beyond which the test rejects, for K equally likely data sets."""
        middles = (np.arange(NODES) + 0.5) / NODES
        seen = [share * special.chdtri(df, middles) / df for share, df in parts]
        limits = [1.0, *(few_seeds(df, alpha) for _, df in parts[1:])]
        shares_PK = np.stack([axis.ravel() for axis in np.meshgrid(*seen)])
        limited_PK = shares_PK * np.array(limits)[:, None]
        df_P = np.array([df for _, df in parts])[:, None]
        df_K = limited_PK.sum(axis=0) ** 2 / (limited_PK**2 / df_P).sum(axis=0)
        error_K = np.sqrt(shares_PK.sum(axis=0))
        return np.asarray(special.stdtrit(df_K, 1.0 - alpha / 2.0) * error_K)

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
    of the examples' part, which would count it again: as far as the seeds show it. Seeds whose
    means tie by chance show less, and a difference would vary less with them than without.
    """
    raw = float(units.standard_error(average_N[None, :])[0] ** 2)
    shares: list[tuple[float, int]] = []
    twice_counted = 0.0
    for scores_SN in seed_scores:
        n_seeds = scores_SN.shape[0]
        share = float(np.var(scores_SN.mean(axis=1), ddof=1)) / n_seeds
        shares.append((share, n_seeds - 1))
        residual_SU = units.influence(scores_SN - scores_SN.mean(axis=0, keepdims=True))
        mean_square = np.square(residual_SU).sum() / ((n_seeds - 1) * (units.count - 1))
        twice_counted += min(share, float(mean_square) / (n_seeds * units.count))
    examples = max(0.0, raw - twice_counted)
    return VarianceComponents(examples, units.count - 1, tuple(shares), raw)


LEVEL = 0.05
NODES = 9
LOWEST = -100.0  # logarithm of the least p-value over seeds that is told apart from 0
# Chance that the seeds' variance lies above its upper limit: of a 95 % interval, and how fast it
# falls with the level. Chosen by simulation, see docs/statistics.md.
BEYOND, FALL = 0.3, 0.7


def few_seeds(df: int, alpha: float) -> float:
    """Upper confidence limit of a variance with `df` degrees of freedom, as a multiple of it.

    At `alpha` = 0.05 it holds with a confidence of 70 %: 6.7 times for two seeds, 2.8 for three.
    The smaller `alpha`, the more confident it must be: a test that errs once in a thousand may
    not rest on a variance that is this small once in ten.
    """
    beyond = BEYOND * min(1.0, alpha / LEVEL) ** FALL
    return float(df / (2.0 * special.gammaincinv(df / 2.0, beyond)))


def satterthwaite(variances: Sequence[tuple[float, int]]) -> float:
    """Degrees of freedom of a sum of (variance, its degrees of freedom); their sum if all are 0."""
    total = sum(v for v, _ in variances)
    if total <= 0.0:
        return float(sum(df for _, df in variances))
    return 1.0 / sum((v / total) ** 2 / df for v, df in variances)
