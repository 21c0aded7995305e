"""Runs sorted into test sets: what answered the same examples may be compared, once each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sizewise.errors import OutcomeError
from sizewise.record.outcome import Evaluation
from sizewise.record.predictions import WEIGHTED_BY
from sizewise.report import words
from sizewise.report.comparison.arms import (
    CLASSICAL,
    TUNED,
    ZERO_SHOT,
    Candidate,
    Member,
    TestSet,
    base_config,
    base_key,
    config_key,
)
from sizewise.report.comparison.runs import AnswerCache, Answers, FloatArray, Problem, Run


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


# Answers that were computed twice differ by rounding (batch, device), not by more.
TOLERANCE = 1e-3


@dataclass
class Folded:
    """A candidate, and the runs whose answers were others than those that stand for it."""

    test: TestSet
    candidate: Candidate
    others: list[Run] = field(default_factory=list)

    def report(self) -> None:
        """List the runs with other answers as one problem of the test set."""
        if not self.others:
            return
        number = words.plural(len(self.others) - 1, "further run")
        more = f" (and those of {number})" if self.others[1:] else ""
        kept = self.candidate.first.run.directory
        reason = (
            f"its answers without training to {self.test.dataset}{more} are others than those of "
            f"{kept}, though base, storage, prompt and decoding are the same; those are used."
        )
        self.test.problems.append(Problem(str(self.others[0].directory), reason))


def read(test: TestSet, run: Run, evaluation: Evaluation, cache: AnswerCache) -> Answers | None:
    """Return the answers of an evaluation, or None with the reason noted."""
    try:
        return cache.get(run, evaluation)
    except OutcomeError as error:
        test.problems.append(Problem(str(run.directory), str(error)))
        return None


def add_tuned(folded: Folded, run: Run, evaluation: Evaluation, cache: AnswerCache) -> None:
    """Add a further seed; a seed that is there already counts once, and is listed."""
    test, members = folded.test, folded.candidate.members
    member = Member(run, evaluation, read(test, run, evaluation, cache))
    seeds = [held.run.outcome.seed for held in members]
    if run.outcome.seed not in seeds:
        members.append(member)
        return
    place = seeds.index(run.outcome.seed)
    kept, left = members[place], member
    if kept.answers is None and member.answers is not None:
        members[place], kept, left = member, member, kept
    reason = (
        f"is seed {run.outcome.seed} of the configuration and data of {kept.run.directory} again "
        f"on {test.dataset}; counted once."
    )
    test.problems.append(Problem(str(left.run.directory), reason))


def add_base(folded: Folded, run: Run, evaluation: Evaluation, cache: AnswerCache) -> None:
    """Fold in a base that was scored again: a run of its own stands before a tuned run's."""
    test, candidate = folded.test, folded.candidate
    held, own = candidate.first, run.outcome.tuned is None
    same = evaluation.predictions.sha256 == held.evaluation.predictions.sha256
    if same and held.answers is not None:
        answers: Answers | None = held.answers
    else:
        answers = read(test, run, evaluation, cache)
    member = Member(run, evaluation, answers)
    missing = held.answers is None and answers is not None
    replaces = own and not candidate.own and (answers is not None or held.answers is None)
    if missing and same and not replaces:  # a copy of the file that the first run has lost
        member, replaces = Member(held.run, held.evaluation, answers), True
    elif not same and _differ(test, held, member):
        folded.others.append(held.run if missing or replaces else run)
    if missing or replaces:
        candidate.members = [member]
    candidate.own = candidate.own or own


def _differ(test: TestSet, a: Member, b: Member) -> bool:
    """Whether two evaluations differ in the primary score of any example."""
    if a.answers is None or b.answers is None:
        first, second = (m.evaluation.scores.get(test.primary, np.nan) for m in (a, b))
        return not np.isclose(first, second, rtol=TOLERANCE, equal_nan=True)
    if set(a.answers.ids) != set(b.answers.ids):
        return True
    values = [m.answers.scores.get(test.primary) for m in (a, b) if m.answers is not None]
    if values[0] is None or values[1] is None:
        return (values[0] is None) != (values[1] is None)
    there = b.answers.positions(a.answers.ids)
    return not np.allclose(values[0], values[1][there], rtol=TOLERANCE, equal_nan=True)


COMPARABLE = "perplexity/bits_per_byte"
PER_TOKEN = ("perplexity/perplexity", "perplexity/nll_per_token")
COUNTED = next(name for name, by in WEIGHTED_BY.items() if by == "answer_tokens")
Counts = tuple[float, ...]


def by_tokenizer(test: TestSet) -> list[TestSet]:
    """Divide a test set whose primary score is per token by how the answers are cut into tokens.

    Returns:
        ``test`` itself where all count alike (or the score is none per token); else one test set
        for each way, with a fingerprint of its own. Candidates without readable answers stay with
        those of the same base.
    """
    if test.primary not in PER_TOKEN:
        return [test]
    groups = _groups(test.candidates)
    if len(groups) < 2:
        return [test]
    parts = []
    for number, (counts, candidates) in enumerate(groups.items()):
        text = f"{test.fingerprint}{counts}"
        parts.append(
            replace(
                test,
                fingerprint=hashlib.sha256(text.encode()).hexdigest()[:16],
                candidates=candidates,
                problems=[] if number else test.problems,
                tokenizers=len(groups),
            )
        )
    return parts


def _groups(candidates: Sequence[Candidate]) -> dict[Counts, list[Candidate]]:
    readable = [c for c in candidates if c.first.answers is not None]
    common = sorted(set.intersection(*(set(_ids(c)) for c in readable))) if readable else []
    groups: dict[Counts, list[Candidate]] = {}
    of_base: dict[str, list[Candidate]] = {}
    for candidate in readable:
        group = groups.setdefault(_counts(candidate, common), [])
        group.append(candidate)
        of_base.setdefault(candidate.model.path, group)
    for candidate in candidates:
        if candidate.first.answers is None and groups:
            of_base.get(candidate.model.path, next(iter(groups.values()))).append(candidate)
    return groups


def _ids(candidate: Candidate) -> tuple[str, ...]:
    answers = candidate.first.answers
    return () if answers is None else answers.ids


def _counts(candidate: Candidate, ids: Sequence[str]) -> Counts:
    answers = candidate.first.answers
    if answers is None:
        return ()
    return tuple(answers.weights[COUNTED][answers.positions(ids)].tolist())
