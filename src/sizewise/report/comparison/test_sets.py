"""Runs sorted into test sets: what answered the same examples, and its scores on all of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sizewise import words
from sizewise.record.predictions import read_predictions
from sizewise.report.comparison.arms import Arm, Member, TestSet
from sizewise.report.comparison.runs import Problem, ScoredAnswers
from sizewise.statistics.arrays import FloatArray

if TYPE_CHECKING:
    from sizewise.metrics.base import ExampleMetric

from dataclasses import replace

from sizewise.config.targets import TARGET, build
from sizewise.errors import OutcomeError
from sizewise.files import hash_text
from sizewise.record.outcome import Evaluation, Outcome
from sizewise.record.predictions import WEIGHTED_BY
from sizewise.report.comparison.arms import (
    CLASSICAL,
    ENCODER,
    TUNED,
    ZERO_SHOT,
    base_config,
    base_key,
    config_key,
)
from sizewise.report.comparison.readings import choose_reading, three_readings
from sizewise.report.comparison.runs import AnswerCache, Run


def build_test_sets(runs: Sequence[Run], cache: AnswerCache) -> list[TestSet]:
    """Sort all evaluations of ``runs`` into test sets and arms; largest set first.

    Of one training that was scored several times, its own run stands before the others.
    """
    sets: dict[tuple[str, str, str, str], TestSet] = {}
    arms: dict[tuple[int, str, str], Arm] = {}
    for run in sorted(runs, key=_order):
        outcome = run.outcome
        for kind, evaluations in _kinds(outcome):
            for evaluation in evaluations.values():
                where = (evaluation.dataset, evaluation.fingerprint, outcome.primary)
                key = (*where, outcome.direction)
                test = sets.setdefault(key, TestSet(*where, outcome.direction, []))
                _add(test, arms, kind, Member(run, evaluation, _read(test, run, evaluation, cache)))
    for (*asked, _), test in sets.items():
        _report_others(test)
        if sum(key[:-1] == tuple(asked) for key in sets) > 1:
            better = "more" if test.direction == "max" else "less"
            test.notes.append(
                f"Some runs count {test.primary} as better the higher and some the lower it is: "
                f"they are not compared. In this table {better} is better."
            )
    parts = [part for test in sets.values() for part in by_tokenizer(test)]
    for test in parts:
        choose_reading(test)
        align(test)
        test.name()
    return sorted(parts, key=lambda t: (-len(t.arms), t.dataset, t.fingerprint))


def _kinds(outcome: Outcome) -> list[tuple[str, Mapping[str, Evaluation]]]:
    """The evaluations of a run by the kind of arm that they belong to.

    An encoder that was not fine-tuned has a head of random numbers: it is nobody's base.
    """
    if outcome.model.family == ENCODER:
        return [(ENCODER, outcome.tuned or {})]
    untuned = CLASSICAL if outcome.model.family == CLASSICAL else ZERO_SHOT
    return [(untuned, outcome.base), (TUNED, outcome.tuned or {})]


def _order(run: Run) -> tuple[int, bool, str]:
    return run.outcome.seed, bool(run.outcome.config.get("run")), run.outcome.run_id


def _read(
    test: TestSet, run: Run, evaluation: Evaluation, cache: AnswerCache
) -> ScoredAnswers | None:
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
    own = kind in (TUNED, ENCODER) or member.run.outcome.tuned is None
    arm = arms.get((id(test), kind, key))
    if arm is None:
        arm = arms[id(test), kind, key] = Arm(kind, config, [member], own)
        test.arms.append(arm)
    elif arm.has_seeds:
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


METRICS = "sizewise.metrics."
MOST_NAMES = 4


def align(test: TestSet) -> None:
    """Find the examples that all readable arms answered, and give every arm its scores on them."""
    members = [m for arm in test.arms for m in arm.members]
    answers = [m.answers for m in members if m.answers is not None]
    sizes = [m.evaluation.examples for m in members]
    test.compared, test.recorded = min(sizes), max(sizes)
    if answers:
        _find_common(test, answers)
    lost: dict[str, list[Member]] = {}
    for arm in test.arms:
        for member in (*arm.members, *arm.copies):
            member.scores = {**_totals(test, member), **_contradicted(test, member)}
            if not arm.has_form and test.said in member.scores:
                member.scores = {**member.scores, test.primary: member.scores[test.said]}
        for member in arm.members:
            for name in member.evaluation.scores.keys() - member.scores.keys():
                lost.setdefault(name, []).append(member)
        arm.scores = _stack(test, arm)
    test.weights = _weights(test, answers)
    _report(test, lost)


def _find_common(test: TestSet, answers: Sequence[ScoredAnswers]) -> None:
    ids = [set(a.ids) for a in answers]
    common, first = set.intersection(*ids), answers[0]
    places = [i for i, key in enumerate(first.ids) if key in common]
    test.ids = tuple(first.ids[i] for i in places)
    test.groups = tuple(first.groups[i] for i in places)
    test.compared, test.recorded = len(places), max(test.recorded, len(set.union(*ids)))


def _report(test: TestSet, lost: Mapping[str, Sequence[Member]]) -> None:
    """List the figures that cannot be had on the compared examples as one problem."""
    if not lost:
        return
    names = sorted(lost, key=lambda name: (name != test.primary, name))
    runs = list(dict.fromkeys(m.run.directory for found in lost.values() for m in found))
    others = f" (and {words.plural(len(runs) - 1, 'further run')})" if runs[1:] else ""
    reason = (
        f"{words.first_of(names, MOST_NAMES)}{others} cannot be computed for the {test.compared} "
        "test examples that every model answered, and stand for others: left out."
    )
    test.problems.append(Problem(str(runs[0]), reason))


def _stack(test: TestSet, arm: Arm) -> FloatArray | None:
    """Primary scores [S, N] ([1, N] for a zero-shot model), or None with a reason noted."""
    if any(m.answers is None for m in arm.members) or not test.ids:
        arm.missing = "the answers of a run cannot be read"
        return None
    name = test.primary if arm.has_form else test.said
    rows = [
        m.answers.scores[name][m.answers.positions(test.ids)]
        for m in arm.members
        if m.answers is not None and name in m.answers.scores
    ]
    if len(rows) < len(arm.members):
        arm.missing = f"{name} has no value per example"
        _unusable(test, arm, "no interval and no test is possible.")
        return None
    matrix = np.stack(rows)
    bad = int(np.count_nonzero(~np.isfinite(matrix)))
    if bad:
        arm.missing = f"{name} is not a number on {bad} of {matrix.size} answers"
        _unusable(test, arm, "not compared.")
        return None
    return matrix


def _unusable(test: TestSet, arm: Arm, so: str) -> None:
    test.problems.append(Problem(str(arm.first.run.directory), f"{arm.missing}: {so}"))


def _weights(test: TestSet, answers: Sequence[ScoredAnswers]) -> FloatArray | None:
    """Weights of the examples in the primary score; None where they all count alike."""
    found = [
        a.weights[test.primary][a.positions(test.ids)] for a in answers if test.primary in a.weights
    ]
    if not found or not test.ids or min(row.min() for row in found) <= 0:
        return None
    if any((row != found[0]).any() for row in found):
        where = str(test.arms[0].first.run.directory)
        reason = f"{test.primary} weighs the examples unlike in other runs: all count alike here."
        test.problems.append(Problem(where, reason))
        return None
    return found[0]


def _totals(test: TestSet, member: Member) -> Mapping[str, float]:
    """Aggregates of an evaluation on the compared examples, without those that cannot be had."""
    recorded, answers = member.evaluation.scores, member.answers
    if answers is None:
        return recorded if member.evaluation.examples == test.compared else {}
    if not set(test.ids) <= set(answers.ids):
        return {}
    if len(answers.ids) == len(test.ids):
        return recorded
    places = answers.positions(test.ids)
    means = {
        name: _mean(answers, name, places)
        for name in answers.scores.keys() & recorded.keys()
        if np.isclose(_mean(answers, name), recorded[name], rtol=1e-6)
    }
    open_names = {n for n, v in recorded.items() if n not in means and np.isfinite(v)}
    return means | _aggregated(member, set(test.ids), open_names) if open_names else means


def _mean(answers: ScoredAnswers, name: str, places: Sequence[int] | slice = slice(None)) -> float:
    """Mean over the examples that have the score, weighted where it is a ratio of sums."""
    values = answers.scores[name][places]
    weights = answers.weights.get(name, np.ones(len(answers.ids)))[places]
    known = np.isfinite(values) & (weights > 0)
    return float(np.average(values[known], weights=weights[known])) if known.any() else np.nan


def _contradicted(test: TestSet, member: Member) -> dict[str, float]:
    """What the answers themselves give on the compared examples, where the record says otherwise.

    Of the scores that stand beside their own per-example values: a figure that does not fit these
    is a problem, and not used.
    """
    recorded, answers = member.evaluation.scores, member.answers
    if answers is None or not test.ids:
        return {}
    shown = {test.said, test.primary, *three_readings(test).values()}
    found, said = {}, []
    for name in sorted(shown & answers.scores.keys() & recorded.keys()):
        if not _same(recorded[name], _mean(answers, name)):
            given = _summary(member, name, set(answers.ids))
            if np.isfinite(given) and not _same(recorded[name], given):
                found[name] = _summary(member, name, set(test.ids))
                said.append(f"{name} {recorded[name]:.8g} (the answers' own: {given:.8g})")
    if said:
        where = member.evaluation.predictions.path
        reason = f"what it records is not what its answers give ({where}): {', '.join(said)}."
        test.problems.append(Problem(str(member.run.directory), f"{reason} The answers count."))
    return found


def _same(recorded: float, given: float) -> bool:
    """Whether two figures are one up to rounding; one that is no number contradicts nothing."""
    return not np.isfinite(recorded) or bool(np.isclose(given, recorded, rtol=1e-6))


def _summary(member: Member, name: str, ids: set[str]) -> float:
    """Sum up the stored scores of some answers by the metric's rule, by the mean where none is.

    NaN where nobody can tell: the rule may be that of a metric which is not of this package.
    """
    answers = member.answers
    nodes = (member.run.outcome.config.get("metric") or {}).values()
    try:
        metrics = [own_metric(node) for node in nodes]
        owner = next((m for m in metrics if m is not None and m.gives(name)), None)
        if answers is None or (owner is None and None in metrics):
            return np.nan
        if owner is None:
            return _mean(answers, name, [i for i, key in enumerate(answers.ids) if key in ids])
        some = [p for p in read_predictions(answers.path) if p.id in ids]
        rows = [_short(p.scores, owner.name) for p in some]
        return owner.aggregate(some, rows).get(name.partition("/")[2], np.nan)
    except Exception:  # whatever a record names that is not here
        return np.nan


def _aggregated(member: Member, ids: set[str], names: set[str]) -> dict[str, float]:
    """Aggregates that are no means, by the metrics' own rules from the stored scores."""
    found: dict[str, float] = {}
    for node in (member.run.outcome.config.get("metric") or {}).values():
        try:
            found |= _by_rule(node, member, ids, names)
        except Exception:  # whatever a record names that is not here: its figures are left out
            continue
    return found


def _by_rule(node: Any, member: Member, ids: set[str], names: set[str]) -> dict[str, float]:
    """Figures of one metric. Its rule counts if it gives the recorded value for all answers.

    What a metric measured on the model itself does not depend on the examples.
    """
    metric, recorded = own_metric(node), member.evaluation.scores
    wanted = {n: n.partition("/")[2] for n in names if metric and n.startswith(f"{metric.name}/")}
    if metric is None or member.answers is None or not wanted:
        return {}
    every = read_predictions(member.answers.path)
    whole, part = (
        metric.aggregate(some, [_short(p.scores, metric.name) for p in some])
        for some in (every, [p for p in every if p.id in ids])
    )
    found = {n: recorded[n] for n, s in wanted.items() if s not in whole and metric.observation}
    for name in wanted.keys() - found.keys():
        if np.isclose(whole.get(wanted[name], np.nan), recorded[name], rtol=1e-6):
            found[name] = part.get(wanted[name], np.nan)
    return found


def _short(scores: Mapping[str, float], metric: str) -> dict[str, float]:
    prefix = f"{metric}/"
    return {n.removeprefix(prefix): v for n, v in scores.items() if n.startswith(prefix)}


def own_metric(node: Any) -> ExampleMetric | None:
    """Build a metric of this package; nothing else that a record may name is called."""
    from sizewise.metrics.base import ExampleMetric

    if not str(node.get(TARGET, "")).startswith(METRICS):
        return None
    metric: ExampleMetric = build(node, "metric", ExampleMetric)
    return metric
