"""What a data set looks like: lengths, repetitions, leaks, labels, samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np

from sizewise import palette
from sizewise.config.data import SPLITS, DatasetConfig
from sizewise.data.example import DataReport, DataSplits, Example
from sizewise.data.splits.frequency import Alike, spellings
from sizewise.data.splits.groups import text_key
from sizewise.data.tokens.encode import (
    ANSWER_CUT,
    CHUNK,
    LengthStatistics,
    nothing_fits,
    why_left_out,
)
from sizewise.data.tokens.reasoning import answer_of
from sizewise.data.tokens.template import Template
from sizewise.files import hash_text


@dataclass(frozen=True)
class Histogram:
    """Counts of values between ``edges`` (one edge more than counts; the last bin is closed)."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class TokenLengths:
    """Token lengths of one split, and how many examples a bound would drop.

    ``kept_at`` maps a bound in tokens to the share of examples whose answer is not cut.
    """

    prompt: LengthStatistics
    answer: LengthStatistics
    prompt_histogram: Histogram
    answer_histogram: Histogram
    kept_at: Mapping[int, float]


@dataclass(frozen=True)
class Repetition:
    """How often texts recur within one split: examples whose text another one before them has."""

    prompts: int
    answers: int
    groups: int
    largest_group: int


@dataclass(frozen=True)
class LabelFrequencies:
    """Labels of one split, the most frequent first, and those that training does not have.

    A label is named by its commonest spelling; ``spellings``: all those of each label that has
    several, the commonest first.
    """

    counts: tuple[tuple[str, int], ...]
    unseen: tuple[str, ...]
    spellings: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Room:
    """What examples have to fit into, in tokens, as ``encode_examples`` has it.

    ``context`` is the model's own bound, ``reserve`` what an answer takes in each split that is to
    be answered. ``truncates``: prompts that are too long are cut, and not left out.
    """

    max_length: int
    context: int | None = None
    reserve: Mapping[str, int] = field(default_factory=dict)
    truncates: bool = False


@dataclass(frozen=True)
class Exploration:
    """What a data set looks like.

    ``too_long`` counts by split and reason what would not fit. ``groups``: the columns that keep
    rows together, beside the question. ``contradictions``: questions with different answers.
    """

    sizes: Mapping[str, int]
    report: DataReport
    lengths: Mapping[str, TokenLengths]
    repetition: Mapping[str, Repetition]
    labels: Mapping[str, LabelFrequencies]
    shared_answers: int
    samples: tuple[Example, ...]
    too_long: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    nothing_fits: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    contradictions: int = 0

    @property
    def leak(self) -> str:
        return leak_sentence(self.report, self.groups)

    @property
    def sentences(self) -> list[str]:
        """What was left out, what splits share, and what was done about it."""
        report, tests = self.report, self.sizes.get("test", 0)
        lines = [
            f"{report.duplicates:,} exact repetitions were removed from {report.rows:,} rows.",
            f"{report.shared_groups:,} groups occur in more than one split"
            + (f" ({report.leaking_rows:,} rows leak)." if report.leaking_rows else "."),
            self.leak,
            f"{self.shared_answers:,} of {tests:,} test answers also are answers in training.",
        ]
        if self.contradictions:
            lines.append(f"Questions with different answers: {self.contradictions:,}.")
        if any(report.filtered.values()):
            lines.append(f"Left out: {report.reasons}.")
        if any(report.noted.values()):
            lines.append(f"To be noted: {report.notes}.")
        return lines


def explore(
    splits: DataSplits,
    template: Template,
    samples: int = 3,
    seed: int = 0,
    room: Room | None = None,
    groups: Sequence[str] = (),
    alike: Alike = text_key,
) -> Exploration:
    """Describe the three splits, in tokens of ``template``, with some training examples.

    ``groups``: the declared group columns. ``alike``: which labels and answers are the same.
    """
    parts: dict[str, Sequence[Example]] = {name: getattr(splits, name) for name in SPLITS}
    filled = {name: rows for name, rows in parts.items() if rows}
    pairs = {name: _pairs(rows, template) for name, rows in filled.items()}
    too_long, nothing = _too_long(pairs, template, room) if room is not None else ({}, ())
    return Exploration(
        sizes={name: len(rows) for name, rows in parts.items()},
        report=splits.report,
        lengths={name: _lengths(found, template) for name, found in pairs.items()},
        repetition={name: repetition(rows) for name, rows in filled.items()},
        labels={
            name: label_frequencies(rows, splits.train, alike) for name, rows in filled.items()
        },
        shared_answers=shared_answers(splits),
        samples=tuple(draw_samples(splits.train or splits.test, samples, seed)),
        too_long=too_long,
        nothing_fits=nothing,
        groups=tuple(groups),
        contradictions=contradictions(chain.from_iterable(filled.values()), alike),
    )


def group_columns(cfg: DatasetConfig) -> tuple[str, ...]:
    """Return the declared group columns of a data set and of its parts, each once."""
    parts = (part.get("group") or () for part in cfg.parts.values())
    return tuple(dict.fromkeys([*cfg.group, *(name for part in parts for name in part)]))


def leak_sentence(report: DataReport, groups: Sequence[str]) -> str:
    """Say what a random split of rows would have leaked; ``groups``: the declared columns."""
    shared = f"question or group ({', '.join(groups)})" if groups else "question"
    return (
        f"With a random split of rows, {report.row_split_leak:.1%} of the test rows would have had "
        f"a row of the same {shared} in training."
    )


BOUNDS = (256, 512, 1024, 2048, 4096, 8192)
Pairs = list[tuple[int, int]]


def _pairs(examples: Sequence[Example], template: Template) -> Pairs:
    found: Pairs = []
    for start in range(0, len(examples), CHUNK):
        chunk = [(e.messages, e.answer) for e in examples[start : start + CHUNK]]
        prompts, answers = template.encode_pairs(chunk)
        found += [(len(p), len(a)) for p, a in zip(prompts, answers, strict=True)]
    return found


def _too_long(
    pairs: Mapping[str, Pairs], template: Template, room: Room
) -> tuple[dict[str, dict[str, int]], tuple[str, ...]]:
    """Count what a job would leave out of each split; and say where nothing is left."""
    bounds = [room.max_length, room.context, template.context]
    limit = min(bound for bound in bounds if bound is not None)
    counts: dict[str, dict[str, int]] = {}
    nothing: list[str] = []
    for name, lengths in pairs.items():
        reserve = room.reserve.get(name, 0)
        reasons = why_left_out(lengths, template, limit, room.context, reserve)
        counts[name] = dict(Counter(reason for reason in reasons if reason is not None))
        if counts[name].get(ANSWER_CUT) == len(lengths):
            nothing.append(nothing_fits(name, lengths, template, limit, room.max_length))
    return {name: found for name, found in counts.items() if found}, tuple(nothing)


def _lengths(pairs: Pairs, template: Template) -> TokenLengths:
    prompts, answers = [prompt for prompt, _ in pairs], [answer for _, answer in pairs]
    whole = np.array([template.length(p, a) for p, a in pairs])
    return TokenLengths(
        prompt=LengthStatistics.of(prompts),
        answer=LengthStatistics.of(answers),
        prompt_histogram=histogram(prompts),
        answer_histogram=histogram(answers),
        kept_at={bound: float((whole <= bound).mean()) for bound in BOUNDS},
    )


def histogram(lengths: Sequence[int], bins: int = 20) -> Histogram:
    """Count lengths in equal bins from 0 to the longest."""
    counts, edges = np.histogram(lengths, bins=bins, range=(0, max(lengths, default=1)))
    return Histogram(tuple(map(float, edges)), tuple(map(int, counts)))


def repetition(examples: Sequence[Example]) -> Repetition:
    """Count recurring prompts and answers (equal but for case and white space) and groups."""
    groups = Counter(example.group for example in examples)
    prompts = {text_key(example.prompt_text) for example in examples}
    answers = {text_key(example.answer) for example in examples}
    return Repetition(
        prompts=len(examples) - len(prompts),
        answers=len(examples) - len(answers),
        groups=len(groups),
        largest_group=max(groups.values(), default=0),
    )


def label_frequencies(
    examples: Sequence[Example], train: Sequence[Example], alike: Alike = text_key
) -> LabelFrequencies:
    """Count the labels of ``examples``; none where the data set names no label column."""
    spelt = spellings((e.meta["label"] for e in examples if "label" in e.meta), alike)
    known = {alike(e.meta["label"]) for e in train if "label" in e.meta}
    names = {key: _by_count(kinds) for key, kinds in spelt.items()}
    counts = Counter({names[key][0]: kinds.total() for key, kinds in spelt.items()})
    return LabelFrequencies(
        counts=tuple((name, counts[name]) for name in _by_count(counts)),
        unseen=tuple(sorted(names[key][0] for key in spelt if key not in known)),
        spellings=tuple(sorted(kinds for kinds in names.values() if len(kinds) > 1)),
    )


def _by_count(counts: Counter[str]) -> tuple[str, ...]:
    return tuple(sorted(counts, key=lambda name: (-counts[name], name)))


def contradictions(examples: Iterable[Example], alike: Alike = text_key) -> int:
    """Count the prompts (equal but for case and white space) that have different answers."""
    first: dict[str, str] = {}  # hashes: there may be millions
    found: set[str] = set()
    for example in examples:
        prompt = hash_text(text_key(example.prompt_text), 16)
        answer = hash_text(alike(answer_of(example.answer)), 16)
        if first.setdefault(prompt, answer) != answer:
            found.add(prompt)
    return len(found)


def shared_answers(splits: DataSplits) -> int:
    """Count test examples whose answer's text also is an answer in training."""
    trained = {text_key(example.answer) for example in splits.train}
    return sum(text_key(example.answer) in trained for example in splits.test)


def draw_samples(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(examples))[:count]
    return [examples[int(place)] for place in chosen]


def draw_lengths(found: Exploration, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2 * len(found.lengths)), layout="constrained")
    grid = figure.subplots(len(found.lengths), 2, squeeze=False)
    for row, (split, lengths) in zip(grid, found.lengths.items(), strict=True):
        parts = (("prompt", lengths.prompt_histogram), ("answer", lengths.answer_histogram))
        for axes, (name, histogram) in zip(row, parts, strict=True):
            axes.stairs(histogram.counts, histogram.edges, fill=True, color=palette.ZERO)
            axes.set(title=f"{split}: {name}", xlabel="tokens", ylabel="examples")
            axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
