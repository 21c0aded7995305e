"""How an optimiser step is cut into micro-batches."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BatchShape:
    """Examples per micro-batch and device, and micro-batches per optimiser step."""

    batch_size: int
    accumulate: int

    def smaller(self) -> BatchShape | None:
        """Return the next smaller micro-batch with the same effective batch, or None at 1.

        Even sizes are halved; others are divided by their smallest prime factor.
        """
        for factor in range(2, self.batch_size + 1):
            if self.batch_size % factor == 0:
                return BatchShape(self.batch_size // factor, self.accumulate * factor)
        return None

    def as_dict(self) -> dict[str, int]:
        """Return plain numbers."""
        return {"batch_size": self.batch_size, "accumulate": self.accumulate}
