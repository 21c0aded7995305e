"""A teacher writes training answers: who is asked what, which answers are kept, what it cost."""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sizewise.composition.others import TEACHER, Other, other_model
from sizewise.config import DatasetConfig, GenerationConfig, RunConfig
from sizewise.config.targets import recorded_config
from sizewise.data.build import kept_splits
from sizewise.data.example import DataSplits, Example
from sizewise.data.splits.groups import question_keys
from sizewise.data.splits.teaching import (
    askable,
    hold_back,
    is_unanswered,
    taught_examples,
    unanswered_prompts,
)
from sizewise.data.tokens.reasoning import answer_of
from sizewise.errors import ConfigError, DataError, EvaluationError
from sizewise.evaluation.score import score_predictions
from sizewise.files import hash_text, write_atomically
from sizewise.job.data import Lesson, Task
from sizewise.job.finished import stored_config
from sizewise.job.others.asking import Replies, ask
from sizewise.metrics.base import ExampleMetric
from sizewise.record.directories import RunDir
from sizewise.record.outcome import TeacherFacts
from sizewise.record.predictions import Prediction

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Written:
    """What a teacher wrote to one prompt, and whether it is trained on.

    ``reason``: why it is left out; empty where it is kept. ``score``: the primary score against
    the reference where there is one; ``agreement``: the mean one against its other answers.
    """

    id: str
    prompt: str
    reference: str | None
    text: str
    reason: str
    score: float | None = None
    agreement: float | None = None


def check_teacher(cfg: RunConfig, metrics: Sequence[ExampleMetric], writes: bool) -> None:
    """Refuse a teacher whose answers could not be used.

    Args:
        cfg: the job.
        metrics: those that it computes.
        writes: whether its model learns to write answers (an encoder learns classes).

    Raises:
        ConfigError: the message names the key.
    """
    if not cfg.learns_from_teacher:
        return
    if not writes:
        raise ConfigError(
            f"dataset.teacher: model={cfg.model.name} learns classes and no texts. Choose a "
            "language model, or dataset.answers_from=gold."
        )
    teaching = cfg.dataset.teaching
    if teaching.min_score is not None and scorer(cfg.dataset, metrics) is None:
        raise ConfigError(
            f"dataset.teaching.min_score={teaching.min_score:g}: dataset.primary="
            f"{cfg.dataset.primary} says nothing of a teacher's answer. Choose a primary score "
            "that is made of answers, or leave min_score out."
        )


def scorer(dataset: DatasetConfig, metrics: Sequence[ExampleMetric]) -> ExampleMetric | None:
    """Return the metric that scores a text against another one; None where there is none."""
    found = next((metric for metric in metrics if metric.gives(dataset.primary)), None)
    usable = found is not None and not (found.needs_likelihood or found.needs_candidates)
    return found if usable and found is not None and found.name != "judge" else None


def refuse_seen(other: Other, splits: DataSplits) -> None:
    """Refuse a finished run as a teacher if it was trained on what is validated or tested here.

    Raises:
        DataError: it was; the message says on how many questions.
    """
    config = None if other.adapter is None else stored_config(Path(other.adapter).parent)
    if config is None:
        return
    trained = kept_splits(recorded_config(config).dataset).train
    seen = {key for example in trained for key in question_keys(example.keys)}
    held = (*splits.validation, *splits.test)
    shared = sum(not seen.isdisjoint(question_keys(example.keys)) for example in held)
    if shared:
        raise DataError(
            f"dataset.teacher was trained on {shared} of the {len(held)} validation and test "
            "questions of this run. Choose a run with the same split (dataset.split)."
        )


def learn_from_teacher(
    cfg: RunConfig,
    device: torch.device,
    run_dir: Path,
    task: Task,
    metrics: Sequence[ExampleMetric],
) -> Lesson:
    """Ask the teacher every prompt it may see; return what is trained on.

    Every answer, kept or not, stands in ``teacher/answers.jsonl``.

    Raises:
        DataError: no answer is kept.
    """
    dataset, splits = cfg.dataset, task.splits
    other = other_model(dataset.teacher, TEACHER)
    refuse_seen(other, splits)
    asked, held_out = askable(splits, unanswered_prompts(dataset))
    asked = list({example.id: example for example in asked}.values())
    log.info("The teacher %s answers %d training prompts.", other.model.name, len(asked))
    if held_out:
        log.warning(
            "%d prompts belong to validation or test and were not put to the teacher.", held_out
        )
    folder = RunDir(run_dir).teacher
    replies = [
        ask(cfg, device, other, asked, folder, generation) for generation in _generations(cfg)
    ]
    written = list(_choose(cfg, asked, replies, scorer(dataset, metrics), splits.train))
    text = "".join(f"{json.dumps(asdict(row), ensure_ascii=False)}\n" for row in written)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(RunDir(run_dir).taught, text)
    answers = {row.id: row.text for row in written if not row.reason}
    source = dataset.answers_from or "teacher"
    examples = taught_examples(splits.train, asked, answers, source)
    if not answers:
        raise DataError(f"None of the teacher's {len(written)} answers is kept: {_why(written)}.")
    held_back: tuple[Example, ...] = ()
    if source == "teacher":
        examples, held_back = hold_back(examples, dataset.split.seed)
    facts: TeacherFacts = {
        "key": hash_text(text, 16),
        **_facts(other, written, replies),
        "answers_from": source,
        "asked": len(asked),
        "held_out": held_out,
        "kept": len(answers),
        "held_back": len(held_back),
    }
    log.info("Of %d answers %d are kept (%s).", len(written), len(answers), _why(written))
    return Lesson(examples, held_back, facts)


def _facts(other: Other, written: Sequence[Written], replies: Sequence[Replies]) -> TeacherFacts:
    """What the answers tell of the teacher, and what they cost."""
    scores = [row.score for row in written if row.score is not None]
    server = not other.model.has_weights
    return TeacherFacts(
        model=other.model.name,
        path=other.model.path,
        family=other.model.family,
        left_out=dict(Counter(row.reason for row in written if row.reason)),
        score=sum(scores) / len(scores) if scores else None,
        seconds=None if server else _sum([reply.seconds for reply in replies]),
        money=_sum([reply.money for reply in replies]),
    )


def _generations(cfg: RunConfig) -> Iterator[GenerationConfig]:
    teaching, plain = cfg.dataset.teaching, cfg.generation
    if teaching.samples == 1:
        yield plain
        return
    for number in range(teaching.samples):
        yield replace(
            plain, do_sample=True, temperature=teaching.temperature, seed=plain.seed + number
        )


def _choose(
    cfg: RunConfig,
    asked: Sequence[Example],
    replies: Sequence[Replies],
    metric: ExampleMetric | None,
    train: Sequence[Example],
) -> Iterator[Written]:
    """Yield for every prompt the answer that is taken, and why it is left out where it is."""
    sign = 1 if cfg.dataset.direction == "max" or metric is None else -1
    score = _Scorer(cfg.dataset.primary, sign, metric, train)
    for example in asked:
        rows = [reply.rows[example.id] for reply in replies if example.id in reply.rows]
        rows = [replace(row, text=answer_of(row.text).strip()) for row in rows]
        usable = [row for row in rows if row.text and row.finished]
        reference = None if is_unanswered(example) else example.answer
        if not usable:
            reason = "cut" if any(row.text for row in rows) else "empty"
            reason = reason if rows else "too long"
            yield Written(example.id, example.prompt_text, reference, "", reason)
            continue
        row, agreement = _medoid(usable, score)
        value = None if reference is None or metric is None else score(row, reference)
        reason = _reason(cfg.dataset, value, agreement if len(replies) > 1 else None)
        agreed = agreement if len(replies) > 1 else None
        yield Written(example.id, example.prompt_text, reference, row.text, reason, value, agreed)


def _reason(dataset: DatasetConfig, score: float | None, agreement: float | None) -> str:
    """Why an answer is left out; empty where it is kept."""
    teaching, sign = dataset.teaching, 1 if dataset.direction == "max" else -1
    if score is not None and teaching.min_score is not None:
        return "" if sign * score >= sign * teaching.min_score else "below min_score"
    if agreement is not None and sign * agreement < sign * teaching.agreement:
        return "samples disagree"
    return ""


@dataclass(frozen=True)
class _Scorer:
    """Primary score of a text against another; without a metric 1 for equal texts, else 0."""

    primary: str
    sign: int
    metric: ExampleMetric | None
    train: Sequence[Example]

    def __call__(self, row: Prediction, reference: str) -> float:
        if self.metric is None:
            return float(row.text.casefold() == answer_of(reference).casefold())
        against = replace(row, reference=reference, answer_bytes=len(reference.encode()))
        try:
            _, (scored,) = score_predictions([against], [self.metric], self.train)
        except EvaluationError:  # another sample that is no reference, as one without a code
            return 0.0 if self.sign > 0 else math.inf
        return scored.scores[self.primary]


def _medoid(rows: Sequence[Prediction], score: _Scorer) -> tuple[Prediction, float]:
    """Return the answer that the others agree with most, and by how much; the first of equals.

    This is minimum Bayes risk decoding with the task's own metric (Kumar and Byrne 2004); for
    labels it is their majority (self-consistency, Wang et al. 2023).
    """
    if len(rows) == 1:
        return rows[0], 0.0
    means = [
        sum(score(row, other.text) for k, other in enumerate(rows) if k != i) / (len(rows) - 1)
        for i, row in enumerate(rows)
    ]
    best = max(range(len(rows)), key=lambda i: (score.sign * means[i], -i))
    return rows[best], means[best]


def _why(written: Sequence[Written]) -> str:
    counts = Counter(row.reason for row in written if row.reason)
    return ", ".join(f"{reason} {count}" for reason, count in counts.items()) or "nothing left out"


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None
