"""What is compared: configurations over their seeds, on the same test examples."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from sizewise.errors import OutcomeError
from sizewise.outcome import Evaluation, ModelFacts
from sizewise.report.load import AnswerCache, Answers, FloatArray, Problem, Run
from sizewise.report.labels import name_all
from sizewise.sweep.identity import canonical_config

ZERO_SHOT = "zero-shot"
TUNED = "tuned"


@dataclass(frozen=True)
class Member:
    """One evaluation of one run."""

    run: Run
    evaluation: Evaluation
    answers: Answers | None


@dataclass
class Candidate:
    """One configuration of a model with all its seeds, zero-shot or tuned.

    ``config`` is the canonical configuration without its seed. ``own`` is False for the zero-shot
    scores that only came with tuned runs.
    """

    kind: str
    config: Mapping[str, Any]
    members: list[Member]
    own: bool
    label: str = ""
    scores: FloatArray | None = None

    @property
    def first(self) -> Member:
        """The member with the lowest seed."""
        return self.members[0]

    @property
    def model(self) -> ModelFacts:
        """Sizes and settings of the model."""
        return self.first.run.outcome.model

    @property
    def tuned(self) -> bool:
        """Whether the model was specialised."""
        return self.kind == TUNED

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the members; empty for a zero-shot model, which has none."""
        return tuple(m.run.outcome.seed for m in self.members) if self.tuned else ()

    @property
    def params(self) -> int:
        """Parameters of the model that answers: the adapter only counts where it is used."""
        return self.model.params_total if self.tuned else self.model.params_base

    @cached_property
    def primary(self) -> str:
        """Name of the primary score."""
        return self.first.run.outcome.primary

    def score(self, name: str | None = None) -> float:
        """Mean over seeds of the recorded aggregate; NaN where it is missing."""
        key = name or self.primary
        values = [m.evaluation.scores.get(key, float("nan")) for m in self.members]
        return float(np.mean(values))

    def cost(self, read: Callable[[Run], float | None]) -> float | None:
        """Mean over seeds of a figure of the runs; None unless all have it."""
        values = [read(m.run) for m in self.members]
        known = [v for v in values if v is not None]
        return float(np.mean(known)) if known and len(known) == len(values) else None

    @property
    def latency(self) -> float | None:
        """Median seconds per answer, mean over seeds; None where it was not measured."""
        value = self.score("efficiency/latency_p50")
        return value if np.isfinite(value) else None

    @property
    def train_seconds(self) -> float | None:
        """Mean training seconds; None for a zero-shot model."""
        return self.cost(lambda run: run.outcome.cost.train_seconds) if self.tuned else None

    @property
    def validation(self) -> float | None:
        """Mean validation loss over seeds, the only figure that may choose between variants."""
        return self.cost(lambda run: run.outcome.validation.get("val_loss"))

    @property
    def max_train(self) -> int:
        """Number of training examples that were used."""
        return int(self.first.run.outcome.data.sizes.get("train", 0)) if self.tuned else 0


@dataclass
class TestSet:
    """Candidates that answered the same test examples.

    Attributes:
        dataset, fingerprint: what was asked.
        primary, direction: the score that counts, and whether ``max`` or ``min`` is better.
        ids: examples that every candidate answered, in the order of the first one.
        groups: group of each.
        recorded: number of examples of the largest evaluation.
        problems: evaluations that could not be used.
    """

    dataset: str
    fingerprint: str
    primary: str
    direction: str
    candidates: list[Candidate]
    ids: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    recorded: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def sign(self) -> float:
        """+1 where more is better, −1 where less is."""
        return 1.0 if self.direction == "max" else -1.0

    @property
    def scored(self) -> list[Candidate]:
        """Candidates with a finite per-example primary score."""
        return [c for c in self.candidates if c.scores is not None]

    def name(self) -> None:
        """Give every candidate a label that tells it from the others."""
        facts = [(c.model, c.tuned, c.config) for c in self.candidates]
        for candidate, label in zip(self.candidates, name_all(facts), strict=True):
            candidate.label = label

    def zero_shot_of(self, candidate: Candidate) -> Candidate | None:
        """The zero-shot candidate with the same base, prompt and decoding, if there is one."""
        wanted = base_key(candidate.first.run)
        for other in self.candidates:
            if other.kind == ZERO_SHOT and base_key(other.first.run) == wanted:
                return other
        return None


def base_key(run: Run) -> str:
    """What zero-shot answers depend on: base, storage, prompt and decoding."""
    model, config = run.outcome.model, run.outcome.config
    parts = [model.path, model.revision, model.quantization, model.chat_template]
    parts += [dict(model.template_kwargs), run.outcome.data.prompt_fingerprint]
    parts += [config.get("generation"), model.dtype]
    return json.dumps(parts, sort_keys=True, default=str)


def config_key(run: Run) -> tuple[str, Mapping[str, Any]]:
    """Key and canonical configuration of a run without its seed."""
    config = {k: v for k, v in canonical_config(run.outcome.config).items() if k != "seed"}
    return json.dumps(config, sort_keys=True, default=str), config


def build_test_sets(runs: Sequence[Run], cache: AnswerCache) -> list[TestSet]:
    """Sort all evaluations of ``runs`` into test sets and candidates; largest set first."""
    sets: dict[tuple[str, str, str], TestSet] = {}
    found: dict[tuple[tuple[str, str, str], str, str], Candidate] = {}
    for run in sorted(runs, key=lambda r: (r.outcome.seed, r.outcome.run_id)):
        for kind, evaluations in ((ZERO_SHOT, run.outcome.base), (TUNED, run.outcome.tuned or {})):
            for evaluation in evaluations.values():
                outcome = run.outcome
                where = (evaluation.dataset, evaluation.fingerprint, outcome.primary)
                test = sets.setdefault(where, TestSet(*where, outcome.direction, []))
                _add(test, found, where, run, kind, evaluation, cache)
    for test in sets.values():
        _align(test)
        test.name()
    return sorted(sets.values(), key=lambda t: (-len(t.candidates), t.dataset, t.fingerprint))


def _add(
    test: TestSet,
    found: dict[Any, Candidate],
    where: tuple[str, str, str],
    run: Run,
    kind: str,
    evaluation: Evaluation,
    cache: AnswerCache,
) -> None:
    key, config = config_key(run) if kind == TUNED else (base_key(run), config_key(run)[1])
    own = kind == TUNED or run.outcome.tuned is None
    candidate = found.get((where, kind, key))
    answers: Answers | None = None
    if candidate is None or kind == TUNED or candidate.first.answers is None:
        try:
            answers = cache.get(run, evaluation)
        except OutcomeError as error:
            test.problems.append(Problem(str(run.directory), str(error)))
    member = Member(run, evaluation, answers)
    if candidate is None:
        found[where, kind, key] = Candidate(kind, config, [member], own)
        test.candidates.append(found[where, kind, key])
    elif kind == TUNED:
        candidate.members.append(member)
    elif candidate.first.answers is None or (own and not candidate.own):
        answers = candidate.first.answers or answers
        candidate.members, candidate.config = [Member(run, evaluation, answers)], config
        candidate.own = candidate.own or own


def _align(test: TestSet) -> None:
    """Keep the examples that all readable candidates answered, and stack their scores."""
    members = [m for c in test.candidates for m in c.members if m.answers is not None]
    if not members:
        return
    first = members[0].answers
    assert first is not None
    common = set(first.ids)
    for member in members:
        common &= set(member.answers.ids) if member.answers else common
    test.recorded = max(m.evaluation.examples for m in members)
    keep = [i for i, key in enumerate(first.ids) if key in common]
    test.ids = tuple(first.ids[i] for i in keep)
    test.groups = tuple(first.groups[i] for i in keep)
    for candidate in test.candidates:
        candidate.scores = _stack(test, candidate)


def _stack(test: TestSet, candidate: Candidate) -> FloatArray | None:
    """Primary scores [S, N] ([1, N] for a zero-shot model), or None with a reason noted."""
    if any(m.answers is None for m in candidate.members) or not test.ids:
        return None
    rows = [values_of(m, test.primary, test.ids) for m in candidate.members]
    where = str(candidate.first.run.directory)
    if any(row is None for row in rows):
        reason = f"{test.primary} has no value per example: no interval and no test is possible."
        test.problems.append(Problem(where, reason))
        return None
    matrix = np.stack([row for row in rows if row is not None])
    bad = int(np.count_nonzero(~np.isfinite(matrix)))
    if bad:
        reason = f"{test.primary} is not a number on {bad} of {matrix.size} answers: not compared."
        test.problems.append(Problem(where, reason))
        return None
    return matrix


def values_of(member: Member, name: str, ids: Sequence[str]) -> FloatArray | None:
    """Per-example values of a score for ``ids``; None where the member has no such score."""
    answers = member.answers
    if answers is None or name not in answers.scores:
        return None
    if answers.ids == tuple(ids):
        return answers.scores[name]
    at = {key: i for i, key in enumerate(answers.ids)}
    return np.asarray(answers.scores[name][[at[key] for key in ids]])
