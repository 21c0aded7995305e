"""How the answers of a closed set are read: as said, with form forgiven, or by likelihood.

An untouched model may know a code and not write it as the data set does. Which reading counts is
decided on the validation split, by what the untouched models do best with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sizewise.metrics.reading.closed import (
    EXACT,
    LENIENT,
    LIKELIHOOD,
    LIKELY,
    LIKELY_CALIBRATED,
    LIKELY_PER_TOKEN,
)
from sizewise.report.comparison.arms import ZERO_SHOT, Arm, TestSet
from sizewise.report.comparison.runs import ScoredAnswers
from sizewise.statistics.arrays import FloatArray

READINGS = {
    EXACT: "as said",
    LENIENT: "with form forgiven",
    LIKELY: "by likelihood",
    LIKELY_PER_TOKEN: "by likelihood per token",
    LIKELY_CALIBRATED: "by calibrated likelihood",
}
# A side of which more answers than this are unusable is said to have no usable answer.
MOST_UNUSABLE = 0.5
MOST_UNFINISHED = 0.05
# So large a share of one answer, of so many, is one answer to all; right ones are less alike.
NEARLY_ALL, FEWEST_PROMPTS, MUCH_LESS = 0.95, 10, 0.1


def is_closed(test: TestSet) -> bool:
    """Whether an answer is one of a closed set: right as a whole, or not."""
    return test.said.endswith(f"/{EXACT}")


def reading_of(test: TestSet) -> str:
    """How the answers are read, in words; empty where there is one way only."""
    return READINGS.get(test.primary.partition("/")[2], "") if is_closed(test) else ""


def choose_reading(test: TestSet) -> None:
    """Make the primary score the reading that the untouched models do best with on validation.

    Of the readings that every model has; as said where validation was not read in that way.
    """
    test.said = test.primary
    if is_closed(test):
        found = _validated(test, available(test))
        if found:
            # Equal figures: the reading that stands first in READINGS.
            test.primary = max(found, key=lambda name: found[name])
        test.notes += _objections(test, found) + _unread(test, found)
    for arm in test.arms:
        arm.primary = test.primary


def available(test: TestSet) -> list[str]:
    """Score names of the readings that every model of the set has, as said first."""
    metric = test.said.partition("/")[0]
    names = [f"{metric}/{reading}" for reading in READINGS]
    members = [m for arm in test.arms if arm.has_form for m in arm.members]
    return [n for n in names if n == test.said or all(n in m.evaluation.scores for m in members)]


def likelihood_of(test: TestSet) -> str | None:
    """The likelihood's variant that is shown: the best on validation, else the first there is."""
    names = [n for n in available(test) if n.partition("/")[2] in LIKELIHOOD]
    found = _validated(test, names)
    return max(names, key=lambda name: found.get(name, -1.0)) if names else None


def three_readings(test: TestSet) -> dict[str, str]:
    """Title → score name of the readings shown beside each other; empty with one only."""
    if not is_closed(test):
        return {}
    names = available(test)
    forgiven = next((n for n in names if n.endswith(f"/{LENIENT}")), None)
    likelihood = likelihood_of(test)
    found = {"As said": test.said, "Form forgiven": forgiven, "By likelihood": likelihood}
    known = {title: name for title, name in found.items() if name is not None}
    return known if len(known) > 1 else {}


def read_as(arm: Arm, name: str, test: TestSet) -> FloatArray | None:
    """Per-example values [S, N] of another reading; None unless all are finite."""
    answers = [m.answers for m in arm.members if m.answers is not None]
    if len(answers) < len(arm.members) or any(name not in a.scores for a in answers):
        return None
    matrix = np.stack([a.scores[name][a.positions(test.ids)] for a in answers])
    return matrix if np.isfinite(matrix).all() else None


def who_chose(test: TestSet) -> str:
    """Name the models on whose validation answers the reading was chosen."""
    smallest = min((arm.size for arm in test.arms if arm.tuned), default=None)
    larger = smallest is not None and all(arm.size > smallest for arm in _general(test))
    return "the larger untouched models" if larger else "the untouched models"


def _general(test: TestSet) -> list[Arm]:
    """The untouched models that stand for size; all of them where none is larger than a tuned."""
    untouched = [arm for arm in test.arms if arm.kind == ZERO_SHOT]
    tuned = [arm.size for arm in test.arms if arm.tuned]
    larger = [arm for arm in untouched if tuned and arm.size > min(tuned)]
    return larger or untouched


def _validated(test: TestSet, names: Sequence[str]) -> dict[str, float]:
    """Best figure that an untouched model has on validation, by reading; as said must be there."""
    records: list[Mapping[str, float]] = [
        m.run.outcome.validated.get("base", {})
        for arm in _general(test)
        for m in (*arm.members, *arm.copies)
    ]
    records = [record for record in records if test.said in record]
    return {
        name: max(record[name] for record in records if name in record)
        for name in names
        if any(np.isfinite(record.get(name, np.nan)) for record in records)
    }


def _objections(test: TestSet, found: Mapping[str, float]) -> list[str]:
    by_likelihood = test.said.partition("/")[0].endswith("_candidate")
    if by_likelihood or not any(arm.kind == ZERO_SHOT for arm in test.arms):
        return []
    if len(available(test)) < 2:
        return [
            "Answers count as said: no other reading of them (form forgiven, likelihood of the "
            "candidates) was recorded for every model, so what of a gain is form is not known."
        ]
    if len(found) < 2:
        return [
            "Answers count as said: how the untouched models do with other readings was not "
            "recorded on the validation split, and the test split chooses nothing."
        ]
    return []


def _unread(test: TestSet, found: Mapping[str, float]) -> list[str]:
    """Say that the untouched models do better with a reading that the test split lacks."""
    metric = test.said.partition("/")[0]
    names = [f"{metric}/{reading}" for reading in READINGS]
    others = {n: v for n, v in _validated(test, names).items() if n not in available(test)}
    best = max(others, key=lambda name: others[name], default=None)
    if best is None or others[best] <= found.get(test.primary, np.inf):
        return []
    way, rates = READINGS[best.partition("/")[2]], (others[best], found[test.primary])
    better, counted = (f"{100 * rate:.1f} %" for rate in rates)
    return [
        f"Untouched models do better {way} on the validation split ({better} against {counted}), "
        f"but not all test answers were read that way{_remedy(test)}."
    ]


def _remedy(test: TestSet) -> str:
    """Name the setting that left likelihoods out, where one did."""
    members = (m for arm in test.arms for m in (*arm.members, *arm.copies))
    settings = (m.run.outcome.config.get("evaluation", {}) for m in members)
    chosen = any(setting.get("candidates_on") for setting in settings)
    return ": leave out evaluation.candidates_on" if chosen else ""


def unusable(test: TestSet, arm: Arm) -> float | None:
    """Share of unusable answers, mean over seeds; None where nothing tells.

    Of a closed set, as said: no answer, or one that does not exist, could be read, and it does not
    count as right. Of free text: cut by the limit of new tokens.
    """
    if not arm.has_form or test.primary != test.said or not test.ids:
        return None
    answers = [m.answers for m in arm.members if m.answers is not None]
    shares = [_unusable(test, a) for a in answers]
    known = [share for share in shares if share is not None]
    return float(np.mean(known)) if known else None


def _unusable(test: TestSet, answers: ScoredAnswers) -> float | None:
    places = answers.positions(test.ids)
    metric = test.said.partition("/")[0]
    names = (f"{metric}/unparsed", f"{metric}/invalid")
    marks = [answers.scores[name][places] for name in names if name in answers.scores]
    if not marks:
        return None if is_closed(test) else 1.0 - float(answers.finished[places].mean())
    wrong = answers.scores[test.primary][places] == 0 if test.primary in answers.scores else True
    return float(((np.nan_to_num(np.max(marks, axis=0)) > 0) & wrong).mean())


def unfinished(test: TestSet, arm: Arm) -> float | None:
    """Share of answers that ``generation.max_new_tokens`` cut, mean over seeds."""
    answers = [m.answers for m in arm.members if m.answers is not None]
    if not arm.has_form or not answers or not test.ids:
        return None
    return float(np.mean([1.0 - a.finished[a.positions(test.ids)].mean() for a in answers]))


def same_answer(test: TestSet, arm: Arm) -> float | None:
    """Share of the commonest answer of a trained model, mean over seeds, where it is no answer.

    None unless nearly all its answers are one although the right ones are not, and where answers
    are read by likelihood, which no text shows.
    """
    answers = [m.answers for m in arm.members if m.answers is not None]
    if not arm.has_seeds or not answers or test.primary.partition("/")[2] in LIKELIHOOD:
        return None
    share = float(np.mean([a.same_text for a in answers]))
    right = float(np.mean([a.same_reference for a in answers]))
    few = len(test.ids) < FEWEST_PROMPTS
    return None if few or share < NEARLY_ALL or right > share - MUCH_LESS else share


def has_no_usable_answer(test: TestSet, arm: Arm) -> bool:
    return (unusable(test, arm) or 0.0) > MOST_UNUSABLE


@dataclass(frozen=True)
class Calibration:
    """How sure a model is of its answers against how often they are right, all seeds together.

    ``error`` is the expected calibration error over ``bins`` (mean probability, share that is
    right, answers) of equal mass: their mean distance, weighted by answers (Naeini et al. 2015;
    Nixon et al. 2019 on equal mass).
    """

    model: str
    confidence: float
    accuracy: float
    error: float
    bins: tuple[tuple[float, float, int], ...]


BINS = 10
FEWEST_ANSWERS = 50


def calibration_of(test: TestSet, arm: Arm) -> Calibration | None:
    """Reliability of an arm's probabilities; None where scores or probabilities do not allow it."""
    from sklearn.calibration import calibration_curve

    sure = _probabilities(test, arm)
    if sure is None or arm.scores is None or not np.isin(arm.scores, (0.0, 1.0)).all():
        return None
    right, sure = arm.scores.ravel(), sure.ravel()
    if right.size < FEWEST_ANSWERS:
        return None
    shares, means = calibration_curve(right, sure, n_bins=BINS, strategy="quantile")
    # The bins of calibration_curve, which tells no counts and leaves out empty ones.
    inner = np.percentile(sure, np.linspace(0, 100, BINS + 1))[1:-1]
    counts = np.bincount(np.searchsorted(inner, sure), minlength=BINS)
    counts = counts[counts > 0]
    error = float(np.average(np.abs(shares - means), weights=counts))
    bins = tuple(zip(means.tolist(), shares.tolist(), counts.tolist(), strict=True))
    return Calibration(arm.label, float(sure.mean()), float(right.mean()), error, bins)


def _probabilities(test: TestSet, arm: Arm) -> FloatArray | None:
    """Probability of the answer [S, N] in the reading that counts; None where not computed."""
    answers = [m.answers for m in arm.members if m.answers is not None]
    if len(answers) < len(arm.members) or not test.ids:
        return None
    reading = test.primary.partition("/")[2]
    if arm.has_form and reading in LIKELIHOOD:
        if reading != LIKELY:
            return None
        rows = [a.candidate_probability[a.positions(test.ids)] for a in answers]
    else:
        # Of the whole answer: the mean over its tokens times their number (a baseline has none).
        rows = [
            np.exp((a.confidence * np.maximum(a.new_tokens, 1))[a.positions(test.ids)])
            for a in answers
        ]
    matrix = np.stack(rows)
    inside = np.isfinite(matrix).all() and matrix.min() >= 0 and matrix.max() <= 1 + 1e-6
    return np.clip(matrix, 0.0, 1.0) if inside else None
