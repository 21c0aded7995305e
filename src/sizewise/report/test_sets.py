"""Runs sorted into test sets: what answered the same examples may be compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sizewise.errors import OutcomeError
from sizewise.outcome import Evaluation
from sizewise.report.candidates import (
    CLASSICAL,
    TUNED,
    ZERO_SHOT,
    Candidate,
    Member,
    TestSet,
    base_key,
    config_key,
)
from sizewise.report.load import AnswerCache, Answers, FloatArray, Problem, Run


def build_test_sets(runs: Sequence[Run], cache: AnswerCache) -> list[TestSet]:
    """Sort all evaluations of ``runs`` into test sets and candidates; largest set first."""
    sets: dict[tuple[str, str, str], TestSet] = {}
    found: dict[tuple[tuple[str, str, str], str, str], Candidate] = {}
    for run in sorted(runs, key=lambda r: (r.outcome.seed, r.outcome.run_id)):
        untuned = CLASSICAL if run.outcome.model.family == CLASSICAL else ZERO_SHOT
        for kind, evaluations in ((untuned, run.outcome.base), (TUNED, run.outcome.tuned or {})):
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
    key, config = config_key(run)
    key = base_key(run) if kind == ZERO_SHOT else key
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
    test.weights = _weights(test, [member.answers for member in members if member.answers])


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


def _weights(test: TestSet, answers: Sequence[Answers]) -> FloatArray | None:
    """Weights of the examples in the primary score; None where they all count alike."""
    found = [
        a.weights[test.primary][a.positions(test.ids)] for a in answers if test.primary in a.weights
    ]
    if not found or not test.ids or min(row.min() for row in found) <= 0:
        return None
    if any((row != found[0]).any() for row in found):
        where = str(test.candidates[0].first.run.directory)
        reason = f"{test.primary} counts the tokens of different tokenizers: compare bits_per_byte."
        test.problems.append(Problem(where, reason))
        return None
    return found[0]


def values_of(member: Member, name: str, ids: Sequence[str]) -> FloatArray | None:
    """Per-example values of a score for ``ids``; None where the member has no such score."""
    answers = member.answers
    if answers is None or name not in answers.scores:
        return None
    return np.asarray(answers.scores[name][answers.positions(ids)])
