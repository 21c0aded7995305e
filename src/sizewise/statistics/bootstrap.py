"""Bootstrap intervals of means and paired differences, seeds as a crossed level included."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from sizewise.errors import StatisticsError
from sizewise.statistics.arrays import FloatArray, fraction, positive_count, same_length
from sizewise.statistics.crossed import variance_components
from sizewise.statistics.resampling import (
    Groups,
    Units,
    bootstrap_weights,
    means_of_seed,
    units_of,
    weighted,
)
from sizewise.statistics.sides import MINIMUM_SEEDS, Sides, side_of, sides_of


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


def percentile_interval(replicates_R: FloatArray, level: float = 0.95) -> Interval:
    """Percentile interval (Efron 1979): the (1 ± level)/2 quantiles of the replicates."""
    tail = (1.0 - fraction(level, "level")) / 2.0
    low, high = np.quantile(replicates_R, [tail, 1.0 - tail])
    return Interval(float(low), float(high), level, "percentile bootstrap")


def order_interval(low_R: FloatArray, high_R: FloatArray, level: float) -> Interval:
    """Percentile interval by order statistics: infinities have no mean to interpolate.

    `low_R`, `high_R`: replicates for either end.
    """
    tail = (1.0 - level) / 2.0
    low = np.quantile(low_R, tail, method="lower")
    high = np.quantile(high_R, 1.0 - tail, method="higher")
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


def t_quantile(degrees_of_freedom: float, level: float) -> float:
    """Upper t quantile at the end of a two-sided interval."""
    upper = (1.0 + fraction(level, "level")) / 2.0
    return float(special.stdtrit(degrees_of_freedom, upper))


def t_stretch(degrees_of_freedom: float, level: float) -> float:
    """Ratio of the t quantile to the normal one at the ends of a two-sided interval."""
    return t_quantile(degrees_of_freedom, level) / float(special.ndtri((1.0 + level) / 2.0))


def seed_deviations(seed_means_S: FloatArray, n: int, rng: np.random.Generator) -> FloatArray:
    """Deviations [n] of resampled seed averages from their mean, of unbiased variance."""
    n_seeds = seed_means_S.size
    centred = (seed_means_S - seed_means_S.mean()) * math.sqrt(n_seeds / (n_seeds - 1))
    return np.asarray(bootstrap_weights(n_seeds, n, rng) @ centred / n_seeds)


def interval_over_levels(
    sides: Sides, means_R: FloatArray, level: float, seed: int, *, given: bool = False
) -> Interval:
    """Interval of the difference from its bootstrap means over examples, seeds added if random.

    `given`: take the seeds as given all the same.

    The deviations of examples and seeds add up, each of unbiased variance. A percentile interval
    of them is too narrow for few units because its tails are the normal's; the remedy is that of
    Hesterberg (2015, The American Statistician 69, "expanded percentile interval"), applied to the
    deviations instead of to the nominal level. Effects of seeds are drawn from a normal
    distribution: resamples of two to five seeds have so few values that their quantiles are those
    of the extremes, and the interval would not agree with the t test.
    """
    differences, units = sides.differences, sides.units
    random = [] if given else sides.random_scores
    estimate = float(differences.mean())
    components = variance_components(differences, [m for _, m in random], units)
    rescale = math.sqrt(units.count / (units.count - 1)) * components.shrinkage
    deviations_R = (means_R - estimate) * rescale
    rng = np.random.default_rng([seed, 1])
    for (sign, _), (share, _) in zip(random, components.seeds, strict=True):
        effects_R = rng.normal(0.0, math.sqrt(share), deviations_R.size)
        deviations_R = deviations_R + sign * effects_R
    tail = (1.0 - level) / 2.0
    stretch = t_stretch(components.df_at(1.0 - level), level)
    low, high = np.quantile(deviations_R, [tail, 1.0 - tail]) * stretch
    seeds = ", normal effects of the seeds" if random else ""
    method = f"bootstrap over examples{seeds}, t-expanded"
    return Interval(estimate + float(low), estimate + float(high), level, method)


Method = Literal["expanded", "percentile", "bca"]


def bootstrap_difference(
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    groups: Groups | None = None,
    *,
    method: Method = "expanded",
    level: float = 0.95,
    n_resamples: int = 10_000,
    seed: int = 0,
    minimum_seeds: int = MINIMUM_SEEDS,
    paired_seeds: bool = False,
) -> Interval:
    """Interval of mean(A) − mean(B) on the same examples (paired bootstrap).

    Sides are [N] (a model without a seed) or [S, N]; the numbers of seeds may differ. From
    `minimum_seeds` seeds on (method "expanded") seeds vary too; below, the interval is that of the
    seeds' average and conditional on them. `groups` [N]: whole groups are resampled. See `sides_of`
    for `paired_seeds`. Raises StatisticsError for empty or non-finite scores or a single unit.
    """
    sides = sides_of(
        scores_a, scores_b, groups, paired_seeds=paired_seeds, minimum_seeds=minimum_seeds
    )
    fraction(level, "level")
    positive_count(n_resamples, "n_resamples")
    if method not in ("expanded", "percentile", "bca"):
        raise StatisticsError(f"method={method!r} is unknown; use expanded, percentile or bca.")
    differences = sides.differences
    means_R = means_of_seed(differences[None, :], sides.units, n_resamples, seed)[:, 0]
    if method == "percentile":
        return percentile_interval(means_R, level)
    if method == "bca":
        left_out = jackknife_means(differences, sides.units)
        return bca_interval(means_R, float(differences.mean()), left_out, level)
    return interval_over_levels(sides, means_R, level, seed)


def jackknife_means(values_N: FloatArray, units: Units) -> FloatArray:
    """Means with one unit left out, [U]."""
    sums_U = units.sums(values_N[None, :])[0]
    return np.asarray((values_N.sum() - sums_U) / (units.examples - units.sizes))


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
    both = both_intervals(pairs, level=level, n_resamples=n_resamples, seed=seed)
    return [over_levels for over_levels, _ in both]


def both_intervals(
    pairs: Sequence[Sides], *, level: float = 0.95, n_resamples: int = 10_000, seed: int = 0
) -> list[tuple[Interval, Interval]]:
    """Every pair's interval over seeds and examples, and the one that takes the seeds as given.

    They are the same where no side has seeds that vary.
    """
    found: dict[int, tuple[Interval, Interval]] = {}
    for positions in batches_of(pairs):
        units = pairs[positions[0]].units
        rows = differences_of(pairs, positions)
        means_RC = means_of_seed(rows, units, n_resamples, seed)
        for column, position in enumerate(positions):
            sides, means_R = pairs[position], means_RC[:, column]
            over_levels = interval_over_levels(sides, means_R, level, seed)
            given = over_levels
            if sides.seeds_are_random:
                given = interval_over_levels(sides, means_R, level, seed, given=True)
            found[position] = over_levels, given
    return [found[position] for position in range(len(pairs))]


@dataclass(frozen=True)
class JointReplicates:
    """Means [K] over seeds and examples, and their replicates [R, K]."""

    means: FloatArray
    replicates: FloatArray


def joint_replicates(
    rows: Sequence[ArrayLike],
    groups: Groups | None = None,
    *,
    level: float = 0.95,
    n_resamples: int = 2_000,
    seed: int = 0,
    minimum_seeds: int = MINIMUM_SEEDS,
    weights: ArrayLike | None = None,
    stretched: bool = True,
) -> JointReplicates:
    """Resample examples (whole groups) once for all rows, each [N] or [S, N] on the same N.

    Rows with at least `minimum_seeds` seeds get resampled seeds too, each row its own, with
    unbiased variance and stretched to the t quantile of `level` with S − 1 degrees of freedom
    (conservative). Quantiles of any function of the replicates are its percentile interval.
    `stretched=False` leaves the seeds at their own variance.
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
    replicates_RK = means_of_seed(averages_KN, units, n_resamples, seed)
    rng = np.random.default_rng([seed, 1])
    for column, side in enumerate(sides):
        if side.trained_by_seed and side.n_seeds >= max(minimum_seeds, 2):
            stretch = t_stretch(side.n_seeds - 1, level) if stretched else 1.0
            means_S = side.scores.mean(axis=1)
            replicates_RK[:, column] += stretch * seed_deviations(means_S, n_resamples, rng)
    return JointReplicates(averages_KN.mean(axis=1), replicates_RK)
