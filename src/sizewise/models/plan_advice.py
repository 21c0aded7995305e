"""Settings that need less memory, by the names they have in a configuration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sizewise.models.plan_types import Workload


def smaller_batches(work: Workload, trains: bool) -> Iterator[tuple[str, Workload]]:
    """Halve the batches step by step, each with the settings that make it so.

    ``evaluation.batch_size`` is the trainer's unless it is set; where it is, it has to be lowered
    by its own name.
    """
    first = work.batch_size
    own = work.own_eval_batch or first == 1
    while work.batch_size > 1 or work.eval_batch_size > 1:
        size, rows = max(1, work.batch_size // 2), max(1, work.eval_batch_size // 2)
        named = []
        if size < first and (trains or not own):
            accumulate = f" trainer.accumulate=×{-(-first // size)}" if trains else ""
            named.append(f"trainer.batch_size={size}{accumulate}")
        if own:
            named.append(f"evaluation.batch_size={rows}")
        work = replace(work, batch_size=size, eval_batch_size=rows)
        yield " ".join(named), work
