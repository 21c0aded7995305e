"""Correction of p-values for the number of comparisons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from statsmodels.stats.multitest import multipletests

from sizewise.errors import StatisticsError
from sizewise.statistics.arrays import BoolArray, FloatArray, fraction


@dataclass(frozen=True)
class HolmCorrection:
    """Adjusted p-values [M] and rejections [M] at family-wise level `alpha`.

    `family_size` is the number of tests corrected for; a test without a p-value (NaN, with
    nan="propagate") is not among them, stays NaN and is not rejected.
    """

    adjusted: FloatArray
    rejected: BoolArray
    alpha: float
    family_size: int


def holm(
    p_values: ArrayLike, alpha: float = 0.05, *, nan: Literal["raise", "propagate"] = "raise"
) -> HolmCorrection:
    """Holm's step-down correction (Holm 1979, Scandinavian Journal of Statistics 6).

    Holds the family-wise error rate at `alpha` under any dependence. An empty family is allowed.
    Raises StatisticsError for p-values outside 0..1, and for NaN unless nan="propagate".
    """
    fraction(alpha, "alpha")
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1:
        raise StatisticsError(f"p_values has {p.ndim} dimensions; pass one p-value per test.")
    present = ~np.isnan(p)
    if nan not in ("raise", "propagate"):
        raise StatisticsError(f"nan={nan!r} is unknown; use 'raise' or 'propagate'.")
    if nan == "raise" and not present.all():
        raise StatisticsError(
            f"p_values {np.flatnonzero(~present).tolist()} are NaN: a test without a result cannot "
            "be corrected; leave it out of the family, or pass nan='propagate'."
        )
    if np.any((p[present] < 0.0) | (p[present] > 1.0)):
        raise StatisticsError("p_values must lie between 0 and 1.")
    adjusted = np.full(p.shape, np.nan)
    rejected = np.zeros(p.shape, dtype=np.bool_)
    if present.any():
        reject, corrected, _, _ = multipletests(p[present], alpha=alpha, method="holm")
        adjusted[present], rejected[present] = corrected, reject
    return HolmCorrection(adjusted, rejected, alpha, int(present.sum()))
