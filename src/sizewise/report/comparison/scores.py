"""Scores on the examples that every arm of a test set answered: per example, and in all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from sizewise.record.predictions import read_predictions
from sizewise.report import words
from sizewise.report.comparison.arms import Arm, Member, TestSet
from sizewise.report.comparison.runs import Answers, FloatArray, Problem

if TYPE_CHECKING:
    from sizewise.metrics.base import ExampleMetric

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
            member.scores = _totals(test, member)
        for member in arm.members:
            for name in member.evaluation.scores.keys() - member.scores.keys():
                lost.setdefault(name, []).append(member)
        arm.scores = _stack(test, arm)
    test.weights = _weights(test, answers)
    _report(test, lost)


def _find_common(test: TestSet, answers: Sequence[Answers]) -> None:
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
    more = f" and {len(names) - MOST_NAMES} more" if names[MOST_NAMES:] else ""
    others = f" (and {words.plural(len(runs) - 1, 'further run')})" if runs[1:] else ""
    reason = (
        f"{', '.join(names[:MOST_NAMES])}{more}{others} cannot be computed for the {test.compared} "
        "test examples that every model answered, and stand for others: left out."
    )
    test.problems.append(Problem(str(runs[0]), reason))


def _stack(test: TestSet, arm: Arm) -> FloatArray | None:
    """Primary scores [S, N] ([1, N] for a zero-shot model), or None with a reason noted."""
    if any(m.answers is None for m in arm.members) or not test.ids:
        return None
    rows = [
        m.answers.scores[test.primary][m.answers.positions(test.ids)]
        for m in arm.members
        if m.answers is not None and test.primary in m.answers.scores
    ]
    where = str(arm.first.run.directory)
    if len(rows) < len(arm.members):
        reason = f"{test.primary} has no value per example: no interval and no test is possible."
        test.problems.append(Problem(where, reason))
        return None
    matrix = np.stack(rows)
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


def _mean(answers: Answers, name: str, places: Sequence[int] | slice = slice(None)) -> float:
    """Mean over the examples that have the score, weighted where it is a ratio of sums."""
    values = answers.scores[name][places]
    weights = answers.weights.get(name, np.ones(len(answers.ids)))[places]
    known = np.isfinite(values) & (weights > 0)
    return float(np.average(values[known], weights=weights[known])) if known.any() else np.nan


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
    metric, recorded = _own_metric(node), member.evaluation.scores
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


def _own_metric(node: Any) -> ExampleMetric | None:
    """Build a metric of this package; nothing else that a record may name is called."""
    from sizewise.metrics.base import ExampleMetric

    settings = {key: value for key, value in node.items() if not key.startswith("_")}
    module, _, name = str(node.get("_target_", "")).rpartition(".")
    found = getattr(import_module(module), name) if module.startswith(METRICS) else None
    known = isinstance(found, type) and issubclass(found, ExampleMetric)
    return found(**settings) if known and found is not None else None
