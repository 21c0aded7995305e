"""Examples to token ids: what fits is encoded, what does not is cut or dropped, and counted."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sizewise.data.example import (
    Example,
    Message,
    as_examples,
    fingerprint,
    question_fingerprint,
)
from sizewise.data.tokens.cache import TokenCache, hash_parts
from sizewise.data.tokens.reasoning import REASONING_TAGS, closed_tags
from sizewise.data.tokens.table import Encoded, Part, TokenTable, make_table, table_of
from sizewise.data.tokens.template import Template
from sizewise.errors import DataError

# Fewer examples than these are encoded before threads would have begun.
PARALLEL_FROM = 4096
PARALLELISM = "TOKENIZERS_PARALLELISM"
ANSWER_CUT, NO_ROOM = "answer_cut", "no_room_to_answer"
FORMAT_VERSION = 3
CHUNK = 1024
"""Examples whose ids are lists in memory at one time."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncodedSplit:
    """The examples of one split that fit, with their token ids in the same order.

    Attributes:
        dropped: examples left out, by reason.
        max_length: the bound in tokens that was applied.
        shortened: kept examples whose prompt was cut.
    """

    encoded: Sequence[Encoded]
    examples: Sequence[Example]
    dropped: Mapping[str, int] = field(default_factory=dict)
    max_length: int = 0
    shortened: int = 0

    def __len__(self) -> int:
        return len(self.encoded)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.examples)

    @property
    def question_fingerprint(self) -> str:
        return question_fingerprint(self.examples)

    @property
    def prompt_lengths(self) -> LengthStatistics:
        return LengthStatistics.of(table_of(self.encoded).prompt_lengths.tolist())

    @property
    def answer_lengths(self) -> LengthStatistics:
        """Token lengths of the answers, end of turn included."""
        return LengthStatistics.of(table_of(self.encoded).answer_lengths.tolist())

    @property
    def answered(self) -> EncodedSplit:
        """The examples whose answer has tokens: all, but for answers that are no class."""
        table = table_of(self.encoded)
        answered = table.answer_lengths > 0
        examples = as_examples(self.examples).where(answered)
        return replace(self, encoded=table.where(answered), examples=examples)

    def first(self, count: int | None) -> EncodedSplit:
        """Return the first ``count`` examples (all for None), for quick runs."""
        return replace(self, encoded=self.encoded[:count], examples=self.examples[:count])


def encode_examples(
    examples: Sequence[Example],
    template: Template,
    max_length: int,
    truncate_prompt: bool = False,
    cache_dir: Path | None = None,
    *,
    context: int | None = None,
    name: str = "data",
    reserve: int = 0,
) -> EncodedSplit:
    """Encode the examples of one split; those whose answer would be cut are dropped and counted.

    So are those whose prompt leaves no room to generate an answer, unless all of them are.

    Args:
        max_length: bound in tokens on prompt and answer together (seq2seq: on each).
        truncate_prompt: cut the question's text from the left until the answer fits.
        context: the model's own bound, if known; the tokenizer's applies besides.
        reserve: tokens that have to fit into ``context`` behind the prompt, where an answer is to
            be generated.

    Raises:
        DataError: no answer fits.
    """
    _say_lost_reasoning(examples, template, name)
    bounds = [max_length, context, template.context]
    limit = min(bound for bound in bounds if bound is not None)
    longest = reserve - (context - limit) if context is not None and truncate_prompt else 0
    longest = longest if 0 < longest < limit else 0
    settings = [limit, truncate_prompt, *([longest] if longest else [])]
    key = hash_parts(FORMAT_VERSION, template.fingerprint, *settings, fingerprint(examples))
    cache = TokenCache(cache_dir)

    def parts() -> Iterator[Part]:
        with _in_parallel(len(examples) >= PARALLEL_FROM):
            for start in range(0, len(examples), CHUNK):
                chunk = list(examples[start : start + CHUNK])
                yield _encode(chunk, template, limit, truncate_prompt, longest)

    table = cache.load(key, len(examples))
    if table is None:
        table = cache.save(key, parts())
    if table is None:
        table = make_table(parts())
    room = TokenBounds(max_length, limit, context, reserve)
    fits, dropped = _fitting(table, template, room, name)
    encoded = table.where(fits)
    return EncodedSplit(
        encoded=encoded,
        examples=as_examples(examples).where(fits),
        dropped=dropped,
        max_length=limit,
        shortened=int(encoded.shortened.sum()),
    )


@dataclass(frozen=True)
class TokenBounds:
    """Bounds in tokens: as asked for, on an example, of the model; kept free behind a prompt."""

    asked: int
    limit: int
    context: int | None
    reserve: int


def _fitting(
    table: TokenTable, template: Template, room: TokenBounds, name: str
) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """Return which examples fit, and how many do not for which reason, in the order they come.

    Raises:
        DataError: no answer fits.
    """
    pairs = np.stack([table.prompt_lengths, table.answer_lengths], axis=1)
    kinds, first, kind, counts = np.unique(
        pairs, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    lengths = list(map(tuple, kinds.tolist()))
    left_out = why_left_out(lengths, template, room.limit, room.context, room.reserve)
    if len(pairs) and all(why == ANSWER_CUT for why in left_out):
        raise DataError(nothing_fits(name, pairs.tolist(), template, room.limit, room.asked))
    dropped: Counter[str] = Counter()
    for number in np.argsort(first).tolist():
        if (why := left_out[number]) is not None:
            dropped[why] += int(counts[number])
    return np.array([why is None for why in left_out], dtype=np.bool_)[kind], dict(dropped)


def why_left_out(
    lengths: Sequence[tuple[int, int]],
    template: Template,
    limit: int,
    context: int | None = None,
    reserve: int = 0,
) -> list[str | None]:
    """Say of each example why it is left out, None where it is kept.

    Prompts without room for an answer are kept where all of them are so: the job refuses them.

    Args:
        lengths: tokens of prompt and answer (0: it is no class that the model can give).
        limit: bound in tokens on both (seq2seq: on each).
        context: the model's own bound, if known.
        reserve: tokens that have to fit into ``context`` behind the prompt.
    """
    cut = [not answer or template.length(prompt, answer) > limit for prompt, answer in lengths]
    tight = [
        bool(reserve) and context is not None and template.length(prompt, reserve) > context
        for prompt, _ in lengths
    ]
    if all(one or other for one, other in zip(cut, tight, strict=True)):
        tight = [False] * len(lengths)
    return [
        ANSWER_CUT if one else NO_ROOM if other else None
        for one, other in zip(cut, tight, strict=True)
    ]


def _encode(
    examples: Sequence[Example], template: Template, limit: int, truncate: bool, longest: int
) -> tuple[list[list[int]], list[list[int]], list[bool]]:
    prompts, answers = template.encode_pairs([(e.messages, e.answer) for e in examples])
    shortened = [False] * len(examples)
    if truncate:
        messages = [example.messages for example in examples]
        lengths = [max(len(answer), longest) for answer in answers]
        shortened = shorten_prompts(messages, prompts, lengths, template, limit)
    return prompts, answers, shortened


@contextmanager
def _in_parallel(wanted: bool) -> Iterator[None]:
    """Let fast tokenizers use several threads (as many as RAYON_NUM_THREADS says, else all).

    Off at all other times: a process that forks later would be warned of it, or hang.
    """
    before = os.environ.get(PARALLELISM)
    if not wanted:
        yield
        return
    os.environ[PARALLELISM] = "true"
    try:
        yield
    finally:
        os.environ[PARALLELISM] = before or "false"


def _say_lost_reasoning(examples: Sequence[Example], template: Template, name: str) -> None:
    counts = Counter(tag for example in examples for tag in closed_tags(example.answer))
    for tag in REASONING_TAGS:
        if counts[tag] and not template.keeps_reasoning(tag):
            log.warning(
                "The chat template takes the reasoning (<%s>…</%s>) out of %d of %d answers of the "
                "%s split: only what follows it is learnt. Set model.chat_template to a template "
                "that keeps it, or take the reasoning out of the data.",
                *(tag, tag, counts[tag], len(examples), name),
            )


def nothing_fits(
    name: str, pairs: Sequence[tuple[int, int]], template: Template, limit: int, max_length: int
) -> str:
    """Say that all answers of a split are cut, how long they are, and what to do."""
    lengths = [template.length(prompt, answer) for prompt, answer in pairs]
    found = LengthStatistics.of(lengths)
    whose = "dataset.max_length" if limit == max_length else "the model's own context"
    advice = (
        f"Raise dataset.max_length to at least {min(lengths)}, or set dataset.truncate_prompt=true."
        if limit == max_length
        else "Choose a model with a longer context, or set dataset.truncate_prompt=true."
    )
    return (
        f"All {len(lengths)} answers of the {name} split are cut at {limit} tokens ({whose}): "
        f"prompt and answer have {min(lengths)} (shortest), {found.p50:.0f} (median) and "
        f"{found.max} (longest) tokens. {advice}"
    )


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


Turns = tuple[Message, ...]
Fitting = Callable[[Turns], list[int] | None]


def shorten_prompts(
    messages: Sequence[Turns],
    prompts: list[list[int]],
    answers: Sequence[int],
    template: Template,
    limit: int,
) -> list[bool]:
    """Replace the prompts that are too long beside ``answers`` tokens by shorter ones, in place.

    Returns for each whether it was cut. Where nothing of the question would remain, it is left as
    it was (and will be dropped).
    """
    cut = [False] * len(prompts)
    for place, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        if template.length(len(prompt), answer) > limit:
            shorter = shorten(messages[place], answer, template, limit)
            if shorter is not None:
                prompts[place], cut[place] = shorter, True
    return cut


def shorten(messages: Turns, answer: int, template: Template, limit: int) -> list[int] | None:
    """Drop the oldest turns, then text from the left of the question, until the answer fits.

    ``answer`` and ``limit`` count tokens. Returns the ids of the longest such prompt found, None
    where none fits.
    """

    def fitting(turns: Turns) -> list[int] | None:
        ids = template.encode_prompts([turns])[0]
        return ids if template.length(len(ids), answer) <= limit else None

    system = tuple(message for message in messages if message.leads)
    turns = tuple(message for message in messages if not message.leads)
    for begin in [place for place, turn in enumerate(turns) if turn.role == "user" and place]:
        if (ids := fitting(system + turns[begin:])) is not None:
            return ids
    asks = bool(turns) and turns[-1].role == "user"
    return _cut_question(system, turns[-1].content, fitting) if asks else None


def _cut_question(system: Turns, text: str, fitting: Fitting) -> list[int] | None:
    best: list[int] | None = None
    low, high = 1, len(text) - 1
    while low <= high:
        start = (low + high) // 2
        kept = text[start:].lstrip()
        ids = fitting((*system, Message("user", kept))) if kept else None
        if ids is not None:
            best, high = ids, start - 1
        elif not kept:
            high = start - 1
        else:
            low = start + 1
    return best
