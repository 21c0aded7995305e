"""Quality over model size: at which size would a zero-shot model match the tuned small one?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from sizewise.errors import StatisticsError
from sizewise.statistics.arrays import FloatArray, finite
from sizewise.statistics.bootstrap import Interval, joint_replicates, order_interval
from sizewise.statistics.resampling import Groups

MATCHED = "matched within the measured range"
ABOVE = "beyond the measured range: larger than the largest measured size"
BELOW = "beyond the measured range: smaller than the smallest measured size"
NOT_RISING = "quality does not rise with size, so no size can be named"
NO_FIT = "no curve fits these scores, so no size can be named"


@dataclass(frozen=True)
class ScalingMatch:
    """Size at which the zero-shot fit reaches the tuned model's score.

    `parameters` is None unless `status` says it lies within the measured sizes. Ends of
    `interval` outside them are 0 (below) or infinity (above): nothing is extrapolated. The
    interval holds the sampling of the test examples (and seeds from two on), not the choice of
    models: other families have other curves. `exact_fit`: two sizes only, no residual to check.
    `fit` is None where least squares found no curve.
    """

    fit: ScalingFit | None
    tuned_mean: float
    status: str
    parameters: float | None
    interval: Interval
    share_within: float
    exact_fit: bool


def matching_size(
    parameters: ArrayLike,
    zero_shot: Sequence[ArrayLike],
    tuned: ArrayLike,
    groups: Groups | None = None,
    *,
    form: Form = "logistic",
    lower: float = 0.0,
    upper: float = 1.0,
    level: float = 0.95,
    n_resamples: int = 1_000,
    seed: int = 0,
    weights: ArrayLike | None = None,
) -> ScalingMatch:
    """Fit zero-shot means over log10 size and find where the fit equals the tuned mean.

    `parameters` [K]: sizes of the zero-shot models, K ≥ 2 different; `zero_shot`: their scores
    [N] or [S, N]; `tuned` [N] or [S, N] on the same examples, higher being better. `lower` and
    `upper` bound the logistic form (chance and best possible score). `weights` [N]: how much each
    example counts. Least squares by MINPACK
    (scipy.optimize.leastsq); the interval refits joint bootstrap resamples of examples (once those
    with equal means). Resamples without a fit could have any size, and widen the interval to both
    sides.
    """
    sizes = checked_sizes(parameters, len(zero_shot), form, lower, upper)
    joint = joint_replicates(
        [*zero_shot, tuned],
        groups, level=level, n_resamples=n_resamples, seed=seed, weights=weights,
    )  # fmt: skip
    fit = fit_scaling(sizes, joint.means[:-1], form=form, lower=lower, upper=upper)
    ends = (float(sizes.min()), float(sizes.max()))
    found = _match(fit, float(joint.means[-1]), ends)
    start = None if fit is None else (fit.intercept, fit.slope)
    means_DK, which_R = np.unique(joint.replicates[:, :-1], axis=0, return_inverse=True)
    refits = [_fit(sizes, row, form, lower, upper, start) for row in means_DK]
    both = zip(which_R.ravel(), joint.replicates[:, -1], strict=True)
    matches_R = np.array([_match(refits[which], float(mean), ends) for which, mean in both])
    unknown = np.isnan(matches_R)
    within = np.isfinite(matches_R) & (matches_R > 0.0)
    status = _status(fit, found)
    return ScalingMatch(
        fit=fit,
        tuned_mean=float(joint.means[-1]),
        status=status,
        parameters=found if status == MATCHED else None,
        interval=order_interval(
            np.where(unknown, 0.0, matches_R), np.where(unknown, np.inf, matches_R), level
        ),
        share_within=float(within.mean()),
        exact_fit=np.unique(sizes).size == 2,
    )


def _match(fit: ScalingFit | None, tuned: float, ends: tuple[float, float]) -> float:
    """Size of equal score within `ends`; 0 below, inf above (or if no rising fit gets there).

    NaN without a fit.
    """
    if fit is None:
        return float("nan")
    smallest, largest = (float(q) for q in fit.quality(np.array(ends)))
    if tuned > max(smallest, largest):
        return float("inf")
    if fit.slope <= 0.0 or tuned < smallest:
        return 0.0
    target = tuned
    if fit.form == "logistic":
        target = float(special.logit((tuned - fit.lower) / (fit.upper - fit.lower)))
    return float(np.clip(10.0 ** ((target - fit.intercept) / fit.slope), *ends))


def _status(fit: ScalingFit | None, found: float) -> str:
    if fit is None:
        return NO_FIT
    if fit.slope <= 0.0:
        return NOT_RISING
    if np.isinf(found):
        return ABOVE
    return BELOW if found == 0.0 else MATCHED


Form = Literal["logistic", "log-linear"]
# Differences of means below this share of the range of the score are rounding.
ROUNDING = 1e-12
# What MINPACK returns where the sum of squares or the coefficients no longer change.
CONVERGED = (1, 2, 3, 4)


@dataclass(frozen=True)
class ScalingFit:
    """Fitted quality over size.

    `log-linear`: intercept + slope · log10(parameters); `logistic`: lower + (upper − lower) ·
    logistic(of the same). `rmse` is the root mean square residual in units of the score. A
    logistic that lies at a bound all along has slope 0 and an infinite intercept.
    """

    form: Form
    intercept: float
    slope: float
    lower: float
    upper: float
    rmse: float

    def quality(self, parameters: ArrayLike) -> FloatArray:
        """Fitted score at these sizes; meaningful between the measured ones only."""
        line = self.intercept + self.slope * np.log10(np.asarray(parameters, dtype=np.float64))
        if self.form == "log-linear":
            return np.asarray(line)
        return np.asarray(self.lower + (self.upper - self.lower) * special.expit(line))


def fit_scaling(
    parameters: ArrayLike,
    means: ArrayLike,
    *,
    form: Form = "logistic",
    lower: float = 0.0,
    upper: float = 1.0,
    start: tuple[float, float] | None = None,
) -> ScalingFit | None:
    """Least-squares fit of mean scores [K] over log10 of `parameters` [K].

    Equal scores give a flat line. None where the search does not end: a logistic between bounds
    that are reached exactly gets steeper without end.
    """
    y = finite(means, "means", 1)
    sizes = checked_sizes(parameters, y.size, form, lower, upper)
    fit = _fit(sizes, y, form, lower, upper, start)
    if fit is None:
        return None
    rmse = float(np.sqrt(np.mean(np.square(fit.quality(sizes) - y))))
    return replace(fit, rmse=rmse)


def _fit(
    sizes: FloatArray,
    y: FloatArray,
    form: Form,
    lower: float,
    upper: float,
    start: tuple[float, float] | None,
) -> ScalingFit | None:
    """`fit_scaling` of checked sizes and means, both [K], with an `rmse` of 0."""
    shares = (y - lower) / (upper - lower)
    line: tuple[float, float] | None
    if (level := _flat(y, shares, form)) is not None:
        line = (level, 0.0)
    elif form == "log-linear":
        slope, intercept = np.polyfit(np.log10(sizes), y, 1)
        line = (float(intercept), float(slope))
    else:
        line = _fit_logistic(np.log10(sizes), shares, start)
    return None if line is None else ScalingFit(form, *line, lower, upper, 0.0)


def _flat(y: FloatArray, shares: FloatArray, form: str) -> float | None:
    """Height of the line where all scores are equal, or none lies between the bounds."""
    if form == "log-linear":
        equal = np.ptp(y) <= ROUNDING * np.abs(y).max()
        return float(y.mean()) if equal else None
    inside = np.clip(shares, 0.0, 1.0)
    return float(special.logit(inside.mean())) if np.ptp(inside) <= ROUNDING else None


def checked_sizes(
    parameters: ArrayLike, n_scores: int, form: str, lower: float, upper: float
) -> FloatArray:
    """Return the sizes [K] of `n_scores` models; what cannot be fitted raises StatisticsError."""
    sizes = finite(parameters, "parameters", 1)
    if sizes.size != n_scores:
        raise StatisticsError(f"{sizes.size} sizes for {n_scores} zero-shot scores.")
    if np.any(sizes <= 0.0) or np.unique(sizes).size < 2:
        raise StatisticsError("parameters must be positive, with at least 2 different sizes.")
    if form not in ("logistic", "log-linear"):
        raise StatisticsError(f"form={form!r} is unknown; use 'logistic' or 'log-linear'.")
    if not lower < upper:
        raise StatisticsError(f"lower={lower} must be below upper={upper}.")
    return sizes


def _fit_logistic(
    x: FloatArray, shares: FloatArray, start: tuple[float, float] | None
) -> tuple[float, float] | None:
    """Fit logistic(intercept + slope · x) to shares; x is centred to keep the steps well scaled."""
    centre = float(x.mean())
    if start is None or not np.isfinite(start).all():
        start = tuple(np.polyfit(x, special.logit(np.clip(shares, 0.01, 0.99)), 1)[::-1])

    apart = x - centre

    def residual(coefficients: FloatArray) -> FloatArray:
        height, slope = coefficients.tolist()
        return np.asarray(special.expit(height + slope * apart) - shares)

    first = [start[0] + start[1] * centre, start[1]]
    (height, slope), *_, status = optimize.leastsq(residual, first, full_output=True)
    if status not in CONVERGED:
        return None
    return float(height - slope * centre), float(slope)
