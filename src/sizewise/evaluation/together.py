"""Jobs of a pack answer together: one decoding for the same prompts behind several adapters.

A step of decoding reads all weights of the base for one token of each row, so that the rows of K
jobs cost little more than those of one. Prompts are read with it; what is read behind them (the
reference, candidates) is many tokens at once, and each job's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from sizewise.config.evaluation import GenerationConfig
from sizewise.data.tokens.template import Template
from sizewise.devices import free_memory, is_out_of_memory
from sizewise.evaluation.generate import Generated, generate_behind
from sizewise.evaluation.prompts import CachedPrompts, Prompts
from sizewise.models.adapter.packed import PackedBase
from sizewise.models.adapter.wrapping import is_adapted
from sizewise.training.seat import Seat, current_seat

Given = ParamSpec("Given")
Result = TypeVar("Result")


@contextmanager
def company(model: nn.Module, order: Callable[[], Sequence[str]], alone: bool) -> Iterator[Company]:
    """Yield whom ``model`` answers a split with; in a pack begin when all others can answer, too.

    Args:
        model: the job's.
        order: gives the names of the prompts as they are answered, where somebody has to know.
        alone: whether it answers without the others in any case, and does not wait for them. So it
            has to be where its adapter is in the base's weights: these are the others', too.
    """
    seat = current_seat()
    if seat is None or alone or not is_adapted(model):
        yield Company()
        return
    seat.gather()
    try:
        yield Company(seat, {name: place for place, name in enumerate(order())})
    finally:
        seat.leave_passes()


@dataclass
class Company:
    """Who answers together: the jobs of a pack, or one alone.

    ``places``: of every prompt, in the order in which they are answered.
    """

    seat: Seat | None = None
    places: Mapping[str, int] = field(default_factory=dict)
    _shared: list[int] = field(default_factory=list)

    @property
    def jobs(self) -> float:
        """How many jobs a decoding was for, on average; 1: this one alone."""
        return fmean(self._shared) if self._shared else 1.0

    def decode(
        self,
        prompts: Prompts,
        template: Template,
        generation: GenerationConfig,
        names: Sequence[str],
    ) -> list[Generated]:
        """Answer as ``generate_behind`` does; what was shared has no latency (NaN)."""
        self._shared.append(1)
        if self.seat is not None and isinstance(prompts, CachedPrompts):
            prompts.begin()
            place = min(self.places[name] for name in names)
            batch = Batch(prompts, template, generation, tuple(names), place)
            answers: list[Generated] | None = self.seat.answer(prompts.model, batch)
            self._shared[-1] = self.seat.answered
            if answers is not None:
                return answers
        return generate_behind(prompts, template, generation, names)

    def sparing(self, measure: Callable[Given, Result]) -> Callable[Given, Result]:
        """Let a batch be tried again where the others' keys and values left it too little memory.

        They are fewer then, or none: its own batch is halved for what it needs itself alone.
        """

        def measured(*given: Given.args, **named: Given.kwargs) -> Result:
            before = len(self._shared)
            try:
                return measure(*given, **named)
            except Exception as error:
                shared = max(self._shared[before:], default=1)
                if self.seat is None or shared == 1 or not is_out_of_memory(error):
                    raise
            # Outside the handler, so that the traceback no longer holds the failed tensors.
            free_memory()
            self.seat.pack.answering.limit(shared // 2)
            return measure(*given, **named)

        return measured


@dataclass(frozen=True, eq=False)
class Batch:
    """B prompts of which no more than the beginning was read, and how they are to be answered.

    ``place``: in the order in which the job answers.
    """

    prompts: CachedPrompts
    template: Template
    generation: GenerationConfig
    names: tuple[str, ...]
    place: int

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
        """Answer the batches of some members, all like this one; their caches keep the prompts."""
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
        for batch, cache in zip(batches, _parted(joined.rewind(), count), strict=True):
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
    """Take the rows apart again; a layer of ``cache`` is let go of as soon as it is copied."""
    parts = [DynamicCache() for _ in range(count)]
    for number, layer in enumerate(cache.layers):
        if layer.get_seq_length():
            pairs = zip(layer.keys.chunk(count), layer.values.chunk(count), strict=True)
            for part, (keys, values) in zip(parts, pairs, strict=True):
                part.update(keys, values, number)
            layer.keys = layer.values = None
    return parts
