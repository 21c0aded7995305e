"""Jobs of a pack answer together: one decoding for the same prompts behind several adapters.

A step of decoding reads all weights of the base for one token of each row, so that the rows of K
jobs cost little more than those of one. Prompts are read with it; what is read behind them (the
reference, candidates) is many tokens at once, and each job's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from sizewise.config.evaluation import GenerationConfig
from sizewise.data.tokens.template import Template
from sizewise.evaluation.generate import Decode, Generated, generate_behind
from sizewise.evaluation.prompts import CachedPrompts, Prompts
from sizewise.models.adapter.packed import PackedBase
from sizewise.models.adapter.wrapping import is_adapted
from sizewise.training.pack import Seat, current_seat


@contextmanager
def decoding(model: nn.Module, merged: bool) -> Iterator[Decode]:
    """Yield how ``model`` decodes a batch: with the other jobs of its pack where that can be.

    ``merged``: its adapter is in the base's weights, and no other job can use these meanwhile.
    """
    seat = current_seat()
    if seat is None or merged or not is_adapted(model):
        yield generate_behind
        return

    def decode(
        prompts: Prompts, template: Template, generation: GenerationConfig, names: Sequence[str]
    ) -> list[Generated]:
        found = _ask(seat, prompts, template, generation, names)
        return generate_behind(prompts, template, generation, names) if found is None else found

    try:
        yield decode
    finally:
        seat.leave_passes()


def _ask(
    seat: Seat,
    prompts: Prompts,
    template: Template,
    generation: GenerationConfig,
    names: Sequence[str],
) -> list[Generated] | None:
    if not isinstance(prompts, CachedPrompts):
        return None
    prompts.begin()
    answers: list[Generated] | None = seat.answer(
        prompts.model, Batch(prompts, template, generation, tuple(names))
    )
    return answers


@dataclass(frozen=True, eq=False)
class Batch:
    """B prompts of which no more than the beginning was read, and how they are to be answered."""

    prompts: CachedPrompts
    template: Template
    generation: GenerationConfig
    names: tuple[str, ...]

    @property
    def tokens(self) -> int:
        """T of the batch, padding included."""
        return self.prompts.tokens.shape[1]

    def is_like(self, other: Batch) -> bool:
        """Whether the other asks the same prompts in the same way."""
        ours, theirs = self.prompts, other.prompts
        return (
            self.names == other.names
            and self.generation == other.generation
            and self.template.fingerprint == other.template.fingerprint
            and ours.ids == theirs.ids
            and ours.beginning.ids == theirs.beginning.ids
            and ours.tokens.device == theirs.tokens.device
        )

    def answer(self, base: PackedBase, asked: Mapping[int, Batch]) -> list[list[Generated]]:
        """Answer the batches of some members, all like this one; their caches keep what was read.

        The time that this takes is nobody's own, so there is no latency (NaN).
        """
        batches = list(asked.values())
        count, rows = len(batches), len(self.names)
        with base.answering([*asked], rows) as model:
            joined = CachedPrompts(
                model,
                [ids for batch in batches for ids in batch.prompts.ids],
                self.prompts.tokens.repeat(count, 1),
                self.prompts.mask.repeat(count, 1),
                _joined([batch.prompts.cache for batch in batches]),
                beginning=self.prompts.beginning,
            )
            answers = generate_behind(joined, self.template, self.generation, self.names * count)
        for batch, cache in zip(batches, _parted(joined.cache, count), strict=True):
            batch.prompts.cache = cache
        answers = [replace(answer, latency=float("nan")) for answer in answers]
        return [answers[i : i + rows] for i in range(0, len(answers), rows)]


def _joined(caches: Sequence[DynamicCache]) -> DynamicCache:
    """Put the rows of caches one below the other."""
    layers = zip(*([layer[:2] for layer in cache] for cache in caches), strict=True)
    joined = [tuple(map(_stacked, zip(*layer, strict=True))) for layer in layers]
    return DynamicCache(joined) if joined else DynamicCache()


def _stacked(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Stack keys or values; some layers of some models keep none."""
    kept = [part for part in parts if part is not None]
    return torch.cat(kept) if kept else None


def _parted(cache: DynamicCache, count: int) -> list[DynamicCache]:
    """Take the rows apart again; nothing is copied."""

    def rows(part: Tensor | None) -> Sequence[Tensor | None]:
        return [None] * count if part is None else part.chunk(count)

    layers = [list(zip(*map(rows, layer[:2]), strict=True)) for layer in cache]
    return [DynamicCache([layer[k] for layer in layers]) for k in range(count)]
