"""Which examples form a micro-batch, in what order: a pure function of lengths, seed and epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sizewise.config.training import TrainerConfig
from sizewise.errors import DataError

MEGA_STEPS = 16
"""Optimiser steps' worth of examples among which lengths are sorted; order at large is random."""


@dataclass(frozen=True)
class MicroBatch:
    """Examples of one forward pass, by their positions in the split.

    ``step`` numbers the optimiser steps of the epoch; ``step_tokens`` are the answer tokens of that
    whole step, over all its micro-batches and ranks.
    """

    indices: tuple[int, ...]
    step: int
    step_tokens: int


def plan_epoch(
    lengths: Sequence[int],
    answer_tokens: Sequence[int],
    batch_size: int,
    accumulate: int = 1,
    *,
    seed: int = 0,
    epoch: int = 0,
    rank: int = 0,
    world: int = 1,
    length_grouping: bool = True,
) -> list[MicroBatch]:
    """Plan one epoch for one rank (``rank`` of ``world``).

    Every rank gets the same number of micro-batches; those of one moment hold examples of like
    length. The chunk that is not full comes last, and so does the step that is not full. Where
    fewer examples than ranks remain over, they sit out this epoch. ``batch_size`` is that of one
    rank; ``seed`` and ``epoch`` decide the order, nothing else does.

    Raises:
        DataError: there are fewer examples than ranks.
    """
    if len(lengths) < world:
        raise DataError(
            f"{len(lengths)} training examples cannot be divided among {world} devices. "
            "Lower trainer.devices or add data."
        )
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths)).tolist()
    width = batch_size * world
    if length_grouping:
        order = _grouped(order, lengths, width * accumulate * MEGA_STEPS)
    chunks = [order[start : start + width] for start in range(0, len(order), width)]
    rest = [chunks.pop()] if len(chunks[-1]) < width else []
    if length_grouping:
        chunks = [chunks[place] for place in rng.permutation(len(chunks))]
        if epoch == 0 and chunks:
            chunks.insert(0, chunks.pop(_longest(chunks, lengths)))
    chunks += [chunk[: len(chunk) - len(chunk) % world] for chunk in rest if len(chunk) >= world]
    return _batches(chunks, answer_tokens, accumulate, rank, world)


def plan_in_order(
    lengths: Sequence[int],
    answer_tokens: Sequence[int],
    batch_size: int,
    *,
    rank: int = 0,
    world: int = 1,
) -> list[MicroBatch]:
    """Plan one pass over this rank's share for evaluation: longest first, each batch a step.

    Where there are fewer examples than ranks every rank takes all of them: the mean per token
    over all ranks is the same, and a rank without a batch would never come to the reduction that
    the others wait in. Every rank has the same number of batches, as models that are divided among
    them need: one that is done repeats its last with ``step_tokens`` 0, which counts nothing.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    most = -(-len(order) // world) if len(lengths) >= world else len(order)
    if len(lengths) >= world:
        order = order[rank::world]
    chunks = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    plan = _batches(chunks, answer_tokens, 1, 0, 1)
    for step in range(len(plan), -(-most // batch_size)):
        plan.append(MicroBatch(plan[-1].indices, step, 0))
    return plan


def cut_smaller(plan: Sequence[MicroBatch], size: int) -> list[MicroBatch]:
    """Cut micro-batches into pieces of at most ``size`` examples; steps hold the same examples."""
    return [
        MicroBatch(batch.indices[start : start + size], batch.step, batch.step_tokens)
        for batch in plan
        for start in range(0, len(batch.indices), size)
    ]


def count_batches(examples: int, batch_size: int, world: int = 1) -> int:
    """Return the number of micro-batches that ``plan_epoch`` gives each rank."""
    full, rest = divmod(examples, batch_size * world)
    return full + (rest >= world)


def fit_plan(steps_per_epoch: int, trainer: TrainerConfig) -> tuple[int, int]:
    """Return (optimiser steps, passes over the data) that the limits allow."""
    limits: list[int] = []
    if trainer.max_epochs > 0:
        limits.append(trainer.max_epochs * steps_per_epoch)
    if trainer.max_steps > 0:
        limits.append(trainer.max_steps)
    total = min(limits)
    return total, -(-total // steps_per_epoch)


def _grouped(order: list[int], lengths: Sequence[int], mega: int) -> list[int]:
    """Sort by length, longest first, within stretches of ``mega`` examples of a random order."""
    grouped: list[int] = []
    for start in range(0, len(order), mega):
        stretch = order[start : start + mega]
        grouped += sorted(stretch, key=lambda index: -lengths[index])
    return grouped


def _longest(chunks: Sequence[Sequence[int]], lengths: Sequence[int]) -> int:
    """Find the chunk with the longest example: run first, it shows at once if memory suffices."""
    return max(range(len(chunks)), key=lambda place: max(lengths[i] for i in chunks[place]))


def _batches(
    chunks: Sequence[Sequence[int]],
    answer_tokens: Sequence[int],
    accumulate: int,
    rank: int,
    world: int,
) -> list[MicroBatch]:
    plan: list[MicroBatch] = []
    for step, start in enumerate(range(0, len(chunks), accumulate)):
        group = chunks[start : start + accumulate]
        tokens = sum(answer_tokens[index] for chunk in group for index in chunk)
        plan += [MicroBatch(tuple(chunk[rank::world]), step, tokens) for chunk in group]
    return plan
