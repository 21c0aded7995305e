"""A checkpoint, translated to another cut of the same optimiser steps into micro-batches."""

from __future__ import annotations

from typing import Any

from sizewise.training.checkpoint import SHAPE
from sizewise.training.shape import BatchShape

_BATCHES = "epoch_loop.batch_progress"


def rescaled(
    checkpoint: dict[str, Any], shape: BatchShape, failed: list[dict[str, int]]
) -> dict[str, Any]:
    """Return ``checkpoint`` with its counts of micro-batches multiplied.

    Checkpoints are written at the end of optimiser steps only, so that every count is a whole
    number of steps. Only the last step of an epoch may hold fewer micro-batches than this makes
    of it; the counts then lie beyond the epoch's end, which means the same.
    """
    factor = shape.accumulate // checkpoint[SHAPE]["accumulate"]
    loops = checkpoint["loops"]["fit_loop"]
    for loader in loops["state_dict"].get("combined_loader", ()):
        loader["position"] *= factor
    progress = loops[_BATCHES]
    for counts in (progress["total"], progress["current"]):
        done = counts["ready"] * factor
        # The save happened inside the last batch's hook, which counts as not completed.
        counts.update(ready=done, started=done, processed=done, completed=done - 1)
    checkpoint[SHAPE] = {**shape.as_dict(), "out_of_memory": failed}
    return checkpoint
