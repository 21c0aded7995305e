"""Statistics of token lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LengthStatistics:
    """Lengths in tokens: how many, their mean, median, 95 % quantile, maximum and sum."""

    count: int
    mean: float
    p50: float
    p95: float
    max: int
    total: int

    @classmethod
    def of(cls, lengths: Sequence[int]) -> LengthStatistics:
        """Summarise ``lengths``; none gives zeros."""
        if not lengths:
            return cls(0, 0.0, 0.0, 0.0, 0, 0)
        values = np.asarray(lengths)
        p50, p95 = np.quantile(values, [0.5, 0.95])
        return cls(
            count=len(lengths),
            mean=float(values.mean()),
            p50=float(p50),
            p95=float(p95),
            max=int(values.max()),
            total=int(values.sum()),
        )
