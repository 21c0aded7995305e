"""Runs sorted into test sets: what answered the same examples may be compared, once each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sizewise.errors import OutcomeError
from sizewise.files import hash_text
from sizewise.record.outcome import Evaluation
from sizewise.record.predictions import WEIGHTED_BY
from sizewise.report import words
from sizewise.report.comparison.arms import (
    CLASSICAL,
    TUNED,
    ZERO_SHOT,
    Arm,
    Member,
    TestSet,
    base_config,
    base_key,
    config_key,
)
from sizewise.report.comparison.runs import AnswerCache, Answers, Problem, Run
from sizewise.report.comparison.scores import align


def build_test_sets(runs: Sequence[Run], cache: AnswerCache) -> list[TestSet]:
    """Sort all evaluations of ``runs`` into test sets and arms; largest set first.

    Of one training that was scored several times, its own run stands before the others.
    """
    sets: dict[tuple[str, str, str], TestSet] = {}
    arms: dict[tuple[int, str, str], Arm] = {}
    for run in sorted(runs, key=_order):
        outcome = run.outcome
        untuned = CLASSICAL if outcome.model.family == CLASSICAL else ZERO_SHOT
        for kind, evaluations in ((untuned, outcome.base), (TUNED, outcome.tuned or {})):
            for evaluation in evaluations.values():
                where = (evaluation.dataset, evaluation.fingerprint, outcome.primary)
                test = sets.setdefault(where, TestSet(*where, outcome.direction, []))
                _add(test, arms, kind, Member(run, evaluation, _read(test, run, evaluation, cache)))
    for test in sets.values():
        _report_others(test)
    parts = [part for test in sets.values() for part in by_tokenizer(test)]
    for test in parts:
        align(test)
        test.name()
    return sorted(parts, key=lambda t: (-len(t.arms), t.dataset, t.fingerprint))


def _order(run: Run) -> tuple[int, bool, str]:
    return run.outcome.seed, bool(run.outcome.config.get("run")), run.outcome.run_id


def _read(test: TestSet, run: Run, evaluation: Evaluation, cache: AnswerCache) -> Answers | None:
    """Return the answers of an evaluation, or None with the reason noted."""
    try:
        return cache.get(run, evaluation)
    except OutcomeError as error:
        test.problems.append(Problem(str(run.directory), str(error)))
        return None


def _add(test: TestSet, arms: dict[tuple[int, str, str], Arm], kind: str, member: Member) -> None:
    if kind == ZERO_SHOT:
        key, config = base_key(member.run, test.dataset), base_config(member.run)
    else:
        key, config = config_key(member.run, test.dataset)
    own = kind == TUNED or member.run.outcome.tuned is None
    arm = arms.get((id(test), kind, key))
    if arm is None:
        arm = arms[id(test), kind, key] = Arm(kind, config, [member], own)
        test.arms.append(arm)
    elif kind == TUNED:
        _add_seed(test, arm, member)
    else:
        _add_base(test, arm, member, own)


def _report_others(test: TestSet) -> None:
    """List the runs with other answers than those that stand for them, one problem per arm."""
    for arm in test.arms:
        if not arm.others:
            continue
        number = words.plural(len(arm.others) - 1, "further run")
        more = f" (and those of {number})" if arm.others[1:] else ""
        reason = (
            f"its answers without training to {test.dataset}{more} are others than those of "
            f"{arm.first.run.directory}, though base, storage, prompt and decoding are the same; "
            "those are used."
        )
        test.problems.append(Problem(str(arm.others[0].directory), reason))


def _add_seed(test: TestSet, arm: Arm, member: Member) -> None:
    """Add a further seed; a seed that is there already counts once, and is listed."""
    seeds = [held.run.outcome.seed for held in arm.members]
    if member.run.outcome.seed not in seeds:
        arm.members.append(member)
        return
    place = seeds.index(member.run.outcome.seed)
    held, left_out = arm.members[place], member
    if held.answers is None and member.answers is not None:
        arm.members[place], held, left_out = member, member, held
    arm.copies.append(left_out)
    reason = (
        f"is seed {member.run.outcome.seed} of the configuration and data of {held.run.directory} "
        f"again on {test.dataset}; counted once."
    )
    test.problems.append(Problem(str(left_out.run.directory), reason))


# Answers that were computed twice differ by rounding (batch, device), not by more.
TOLERANCE = 1e-3


def _add_base(test: TestSet, arm: Arm, member: Member, own: bool) -> None:
    """Join a base that was scored again: a run of its own stands before a tuned run's."""
    held = arm.first
    same = member.evaluation.predictions.sha256 == held.evaluation.predictions.sha256
    missing = held.answers is None and member.answers is not None
    replaces = own and not arm.own and (member.answers is not None or held.answers is None)
    if missing and same and not replaces:  # a copy of the file that the first run has lost
        arm.copies.append(member)
        held.answers = member.answers
    else:
        if not same and _differ(test, held, member):
            arm.others.append(held.run if missing or replaces else member.run)
        arm.members = [member if missing or replaces else held]
        arm.copies.append(held if missing or replaces else member)
    arm.own = arm.own or own


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

    Each way gets a fingerprint of its own; arms without readable answers stay with those of the
    same base.
    """
    if test.primary not in PER_TOKEN:
        return [test]
    groups = _groups(test.arms)
    if len(groups) < 2:
        return [test]
    parts = []
    for number, (counts, arms) in enumerate(groups.items()):
        fingerprint = hash_text(f"{test.fingerprint}{counts}", 16)
        problems = [] if number else test.problems
        more: dict[str, Any] = {"problems": problems, "tokenizers": len(groups)}
        parts.append(replace(test, fingerprint=fingerprint, arms=arms, **more))
    return parts


def _groups(arms: Sequence[Arm]) -> dict[Counts, list[Arm]]:
    readable = [(arm, arm.first.answers) for arm in arms if arm.first.answers is not None]
    common = sorted(set.intersection(*(set(a.ids) for _, a in readable))) if readable else []
    groups: dict[Counts, list[Arm]] = {}
    of_base: dict[str, list[Arm]] = {}
    for arm, answers in readable:
        counts = tuple(answers.weights[COUNTED][answers.positions(common)].tolist())
        group = groups.setdefault(counts, [])
        group.append(arm)
        of_base.setdefault(arm.model.path, group)
    for arm in arms:
        if arm.first.answers is None and groups:
            of_base.get(arm.model.path, next(iter(groups.values()))).append(arm)
    return groups
