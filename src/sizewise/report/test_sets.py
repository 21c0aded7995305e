"""Runs sorted into test sets: what answered the same examples may be compared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sizewise.outcome import Evaluation
from sizewise.report.candidates import CLASSICAL, TUNED, ZERO_SHOT, Candidate, Member, TestSet
from sizewise.report.folding import Folded, add_base, add_tuned, read
from sizewise.report.keys import base_config, base_key, config_key
from sizewise.report.load import AnswerCache, Answers, FloatArray, Problem, Run
from sizewise.report.per_token import by_tokenizer


def build_test_sets(runs: Sequence[Run], cache: AnswerCache) -> list[TestSet]:
    """Sort all evaluations of ``runs`` into test sets and candidates; largest set first.

    Of one training that was scored several times, its own run stands before the others.
    """
    sets: dict[tuple[str, str, str], TestSet] = {}
    found: dict[tuple[int, str, str], Folded] = {}
    for run in sorted(runs, key=_order):
        untuned = CLASSICAL if run.outcome.model.family == CLASSICAL else ZERO_SHOT
        for kind, evaluations in ((untuned, run.outcome.base), (TUNED, run.outcome.tuned or {})):
            for evaluation in evaluations.values():
                outcome = run.outcome
                where = (evaluation.dataset, evaluation.fingerprint, outcome.primary)
                test = sets.setdefault(where, TestSet(*where, outcome.direction, []))
                _add(test, found, run, kind, evaluation, cache)
    for folded in found.values():
        folded.report()
    parts = [part for test in sets.values() for part in by_tokenizer(test)]
    for test in parts:
        _align(test)
        test.name()
    return sorted(parts, key=lambda t: (-len(t.candidates), t.dataset, t.fingerprint))


def _order(run: Run) -> tuple[int, bool, str]:
    return run.outcome.seed, bool(run.outcome.config.get("run")), run.outcome.run_id


def _add(
    test: TestSet,
    found: dict[tuple[int, str, str], Folded],
    run: Run,
    kind: str,
    evaluation: Evaluation,
    cache: AnswerCache,
) -> None:
    if kind == ZERO_SHOT:
        key, config = base_key(run, test.dataset), base_config(run)
    else:
        key, config = config_key(run, test.dataset)
    folded = found.get((id(test), kind, key))
    if folded is not None:
        fold = add_tuned if kind == TUNED else add_base
        fold(folded, run, evaluation, cache)
        return
    member = Member(run, evaluation, read(test, run, evaluation, cache))
    own = kind == TUNED or run.outcome.tuned is None
    candidate = Candidate(kind, config, [member], own)
    test.candidates.append(candidate)
    found[id(test), kind, key] = Folded(test, candidate)


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
        reason = f"{test.primary} weighs the examples unlike in other runs: all count alike here."
        test.problems.append(Problem(where, reason))
        return None
    return found[0]


def values_of(member: Member, name: str, ids: Sequence[str]) -> FloatArray | None:
    """Per-example values of a score for ``ids``; None where the member has no such score."""
    answers = member.answers
    if answers is None or name not in answers.scores:
        return None
    return np.asarray(answers.scores[name][answers.positions(ids)])
