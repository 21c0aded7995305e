"""Runs that say nothing new of a candidate: the same base again, the same seed again."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sizewise.errors import OutcomeError
from sizewise.outcome import Evaluation
from sizewise.report import words
from sizewise.report.candidates import Candidate, Member, TestSet
from sizewise.report.load import AnswerCache, Answers, Problem, Run

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
