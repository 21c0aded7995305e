"""Which examples are evaluated together, and how many."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from sizewise.errors import OutOfMemoryError

log = logging.getLogger(__name__)


@dataclass
class BatchSize:
    """The evaluation's batch size, halved whenever memory runs out; training's is another."""

    size: int
    failed: list[int] = field(default_factory=list)

    def halve(self, attempted: int) -> None:
        """Remember that ``attempted`` examples did not fit and take half as many.

        Raises:
            OutOfMemoryError: a single example did not fit.
        """
        self.failed.append(attempted)
        if attempted <= 1:
            raise OutOfMemoryError(
                "Memory ran out while one single example was evaluated. Lower "
                "dataset.max_length or generation.max_new_tokens, or use quantization=nf4."
            )
        self.size = attempted // 2
        log.warning("Out of memory with %d examples; going on with %d.", attempted, self.size)


def plan_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Divide positions into batches of similar length, longest first (so memory fails early)."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    return split(order, batch_size)


def split(batch: Sequence[int], size: int) -> list[list[int]]:
    """Cut a batch into consecutive parts of at most ``size``."""
    return [list(batch[i : i + size]) for i in range(0, len(batch), size)]
