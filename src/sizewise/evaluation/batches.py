"""Which examples are evaluated together."""

from __future__ import annotations

from collections.abc import Sequence


def plan_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Divide positions into batches of similar length, longest first (so memory fails early)."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    return split(order, batch_size)


def split(batch: Sequence[int], size: int) -> list[list[int]]:
    """Cut a batch into consecutive parts of at most ``size``."""
    return [list(batch[i : i + size]) for i in range(0, len(batch), size)]
