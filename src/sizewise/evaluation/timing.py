"""How fast a model answers: a sample decoded plainly, apart from all that is measured beside it.

Untouched and specialised model take turns in one session, so that a busy machine slows both, at
batch 1 and at the batch used; an adapter is merged, as it would be served, where it can be and
memory suffices. On a CPU the seconds of computing stand beside those that passed: where they
differ, the machine was busy.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any

from sizewise.config.evaluation import GenerationConfig
from sizewise.data.tokens.encode import EncodedSplit
from sizewise.data.tokens.template import Template
from sizewise.devices import BatchSize, device_of, free_memory, halve_on_oom, is_out_of_memory
from sizewise.errors import OutOfMemoryError
from sizewise.evaluation.generate import Generated, generate_batch
from sizewise.models.likelihood import plan_batches
from sizewise.record.timing import ENOUGH_SECONDS, MOST_ROUNDS, Timing

log = logging.getLogger(__name__)
Side = Callable[[], AbstractContextManager[Any]]
"""Opens the block in which the model answers as one of the two sides.

With an adapter it yields the bytes of weights that are kept beside merged ones; 0: nothing is.
"""
WARM_UP = 4
UNKNOWN_SPEED = "Speed is not known: memory does not suffice to time one answer."


def time_batch(
    model: Any, split_: EncodedSplit, template: Template, generation: GenerationConfig, size: int
) -> dict[str, tuple[float, int]]:
    """Decode the batch of middling length, once warm; return its seconds and size by example.

    Nothing where memory does not suffice for one answer: that costs no result.
    """
    lengths = [len(item.prompt_ids) for item in split_.encoded]
    batches = plan_batches(lengths, size)

    def seconds(batch: Sequence[int]) -> float:
        prompts = [split_.encoded[i].prompt_ids for i in batch]
        ids = [split_.examples[i].id for i in batch]
        generate_batch(model, prompts, template, shortened(generation), ids)
        return generate_batch(model, prompts, template, generation, ids)[0].latency

    middling = [batches[len(batches) // 2]]
    try:
        timed = list(halve_on_oom(middling, BatchSize(size), seconds))
    except OutOfMemoryError:
        log.warning(UNKNOWN_SPEED)
        return {}
    return {split_.examples[i].id: (took, len(batch)) for batch, took in timed for i in batch}


@dataclass(frozen=True)
class _Run:
    """One call: seconds that passed and seconds of computing, of some answers and their tokens."""

    wall: float
    cpu: float
    answers: int
    tokens: int


def shortened(generation: GenerationConfig) -> GenerationConfig:
    """Return the same for answers that do not count: first calls compile and allocate."""
    return replace(generation, max_new_tokens=min(WARM_UP, generation.max_new_tokens))


def time_sides(
    model: Any,
    sides: Mapping[str, Side],
    split_: EncodedSplit,
    template: Template,
    generation: GenerationConfig,
    count: int,
    batch_size: int,
    leaner: Mapping[str, Side] | None = None,
) -> list[Timing]:
    """Time every side at batch 1 and at ``batch_size``, in turns.

    Args:
        model: whose answers they are.
        sides: how each side is made to answer.
        split_: examples; ``count`` of them, at even distances of length, are answered alone.
        template: how prompts are written.
        generation: how answers are decoded.
        count: answers at batch 1 in every round, and rounds of as many prompts.
        batch_size: the batch used; half of it where memory does not suffice, and so on. A model
            for which there is not even enough for one answer is not timed: that costs no result.
        leaner: sides in a way that needs less memory, which is tried before smaller batches.
    """
    spare = dict(leaner or {})
    while True:
        samples = {batch_size: _sample(split_, batch_size), 1: _sample(split_, count)}
        try:
            return _in_turns(model, sides, samples, template, generation)
        except _NoMemoryError as error:
            side = error.side
        # Outside of `except`: the error's traceback would keep the batch's tensors alive.
        free_memory()
        if side in spare:
            sides = {**sides, side: spare.pop(side)}
            continue
        if batch_size == 1:
            log.warning(UNKNOWN_SPEED)
            return []
        batch_size //= 2
        log.warning("Out of memory while answers are timed: %d at once.", batch_size)


class _NoMemoryError(Exception):
    """Memory does not suffice for a side as it is: a leaner way or a smaller batch is next."""

    def __init__(self, side: str) -> None:
        super().__init__(side)
        self.side = side


@contextmanager
def _named(side: str) -> Iterator[None]:
    """Say which side memory did not suffice for."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise _NoMemoryError(side) from error


def _in_turns(
    model: Any,
    sides: Mapping[str, Side],
    samples: Mapping[int, Sequence[list[int]]],
    template: Template,
    generation: GenerationConfig,
) -> list[Timing]:
    """Time every side on each sample, in batches of its key."""
    runs: dict[tuple[str, int], list[_Run]] = {(s, b): [] for b in samples for s in sides}
    merged: dict[str, bool | None] = {}
    started = time.perf_counter()
    for number in range(MOST_ROUNDS):
        if number and time.perf_counter() - started > ENOUGH_SECONDS:
            break
        for size, prompts in samples.items():
            for side, block in sides.items():
                with _named(side), block() as kept:
                    now = kept > 0 if isinstance(kept, int) else None
                    if merged.setdefault(side, now) != now:  # memory sufficed in some rounds only
                        raise _NoMemoryError(side)
                    runs[side, size] += _timed(model, prompts, size, template, generation, number)
    on_cpu = device_of(model).type == "cpu"
    return [
        replace(_summary(side, size, found, on_cpu), merged=merged[side])
        for (side, size), found in runs.items()
    ]


def _sample(split_: EncodedSplit, count: int) -> list[list[int]]:
    """Return prompts at even distances in the order of their lengths."""
    prompts = sorted((list(item.prompt_ids) for item in split_.encoded), key=len)
    step = max(1, len(prompts) // count)
    return prompts[step // 2 :: step][:count]


def _timed(
    model: Any,
    prompts: Sequence[list[int]],
    size: int,
    template: Template,
    generation: GenerationConfig,
    number: int,
) -> list[_Run]:
    """Answer all prompts; before the first round a few tokens of one batch, which do not count."""
    batches = [prompts[i : i + size] for i in range(0, len(prompts), size)]
    if number == 0:
        generate_batch(model, batches[0], template, shortened(generation))
    runs = []
    for batch in batches:
        cpu = time.process_time()
        answers: list[Generated] = generate_batch(model, batch, template, generation)
        spent = time.process_time() - cpu
        tokens = sum(len(answer.token_ids) for answer in answers)
        runs.append(_Run(answers[0].latency, spent, len(batch), tokens))
    return runs


def _summary(side: str, size: int, runs: Sequence[_Run], on_cpu: bool) -> Timing:
    answer = [run.wall / run.answers for run in runs]
    token = [run.wall / run.tokens for run in runs]
    answers, tokens = sum(run.answers for run in runs), sum(run.tokens for run in runs)
    return Timing(
        side=side,
        batch_size=max(run.answers for run in runs),
        answers=answers,
        new_tokens=tokens / answers,
        per_answer=median(answer),
        per_answer_low=min(answer),
        per_answer_high=max(answer),
        per_token=median(token),
        per_token_low=min(token),
        per_token_high=max(token),
        cpu_per_answer=fmean(run.cpu / run.answers for run in runs) if on_cpu else None,
        mean_per_answer=fmean(answer),
    )
