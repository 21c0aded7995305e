"""Least-squares fit of quality over the size of a model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from sizewise.errors import StatisticsError
from sizewise.statistics.arrays import FloatArray, finite

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
    shares = (y - lower) / (upper - lower)
    line: tuple[float, float] | None
    if (level := _flat(y, shares, form)) is not None:
        line = (level, 0.0)
    elif form == "log-linear":
        slope, intercept = np.polyfit(np.log10(sizes), y, 1)
        line = (float(intercept), float(slope))
    else:
        line = _fit_logistic(np.log10(sizes), shares, start)
    if line is None:
        return None
    fit = ScalingFit(form, *line, lower, upper, 0.0)
    rmse = float(np.sqrt(np.mean(np.square(fit.quality(sizes) - y))))
    return replace(fit, rmse=rmse)


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


def _logit_start(x: FloatArray, shares: FloatArray) -> tuple[float, float]:
    slope, intercept = np.polyfit(x, special.logit(np.clip(shares, 0.01, 0.99)), 1)
    return float(intercept), float(slope)


def _fit_logistic(
    x: FloatArray, shares: FloatArray, start: tuple[float, float] | None
) -> tuple[float, float] | None:
    """Fit logistic(intercept + slope · x) to shares; x is centred to keep the steps well scaled."""
    centre = float(x.mean())
    if start is None or not np.isfinite(start).all():
        start = _logit_start(x, shares)

    def residual(coefficients: FloatArray) -> FloatArray:
        line = coefficients[0] + coefficients[1] * (x - centre)
        return np.asarray(special.expit(line) - shares)

    first = [start[0] + start[1] * centre, start[1]]
    (height, slope), *_, status = optimize.leastsq(residual, first, full_output=True)
    if status not in CONVERGED:
        return None
    return float(height - slope * centre), float(slope)
