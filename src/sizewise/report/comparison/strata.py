"""Where specialisation wins and where size does: scores by kind of example, confusion of codes."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sizewise.data.splits.frequency import STRATUM, spellings
from sizewise.metrics.reading.closed import LIKELIHOOD, plain
from sizewise.report.comparison.arms import Arm, TestSet
from sizewise.report.comparison.contrast import Case, Contrast, Tested, compare_cases
from sizewise.report.comparison.pairs import rows
from sizewise.report.comparison.points import score_intervals
from sizewise.report.comparison.runs import ScoredAnswers
from sizewise.statistics.arrays import FloatArray
from sizewise.statistics.routing import RoutingCurve, average_curve, routing_curve

MOST_LEVELS = 12
FEWEST = 5
RESAMPLES = 2_000
BANDS = ((0, 0), (1, 4), (5, 19), (20, 99), (100, None))
PROMPT_LENGTH = "prompt length"


@dataclass(frozen=True)
class Level:
    """One value of a stratum: its examples, the mean score of each model, and the gain.

    ``tested`` is how much better the tuned model is than ``against``, with a p-value corrected for
    all levels that were tested; None where there are too few examples. ``intervals`` are of 95 %
    for each mean (see ``with_intervals``).
    """

    value: str
    examples: int
    means: dict[str, float]
    tested: Tested | None = None
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Stratum:
    """One breakdown; ``against`` is the label of the model that gains are over."""

    name: str
    against: str | None
    levels: tuple[Level, ...]

    @property
    def change(self) -> float:
        """By how much the gain surely changes: how far the intervals of two levels are apart.

        Below 0 where they overlap; a range of the gains themselves would grow with chance.
        """
        tested = [level.tested for level in self.levels if level.tested is not None]
        if len(tested) < 2:
            return -np.inf
        return max(t.low for t in tested) - min(t.high for t in tested)

    def where(self, value: str) -> str:
        """A level in words, after ``where``: ``the answer is never seen in training``."""
        if self.name == STRATUM:
            return f"the answer is {value.partition(' (')[0]} in training"
        return f"{self.name.replace('_', ' ')} is {value}"


def strata_of(test: TestSet, contrast: Contrast, seed: int = 0) -> list[Stratum]:
    """Break the scores of the contrast down by prompt length and every stratum of the data.

    Levels are tested with half of the 5 % for how often the answer occurs in training and half for
    all other strata, corrected by Holm within each: the first is the question that is known before.
    """
    columns = _columns(test, contrast)
    tested = _tested(test, contrast, columns, seed)
    return [_stratum(test, contrast, name, columns[name], tested) for name in columns]


def _columns(test: TestSet, contrast: Contrast) -> dict[str, list[str]]:
    """The value of every example in each stratum that divides them; frequency first."""
    answers = contrast.small.first.answers
    if answers is None or not test.ids:
        return {}
    columns: dict[str, list[str]] = {}
    positions = answers.positions(test.ids)
    for name, values in answers.strata.items():
        levels = _levels([values[i] for i in positions])
        if levels is not None:
            columns[name] = levels
    columns[PROMPT_LENGTH] = _thirds(test, answers)
    columns = {name: values for name, values in columns.items() if len(set(values)) > 1}
    order = sorted(columns, key=lambda name: (name != STRATUM, name == PROMPT_LENGTH))
    return {name: columns[name] for name in order}


def with_intervals(
    test: TestSet, contrast: Contrast, strata: Sequence[Stratum], seed: int = 0
) -> list[Stratum]:
    """The strata with a 95 % interval of every mean, the one that changes most first."""
    columns = _columns(test, contrast)
    arms = [arm for arm in contrast.shown if arm.scores is not None]
    found = []
    for stratum in strata:
        column = np.array(columns[stratum.name])
        levels = [
            replace(level, intervals=_intervals(test, arms, column == level.value, seed))
            for level in stratum.levels
        ]
        found.append(replace(stratum, levels=tuple(levels)))
    return sorted(found, key=lambda stratum: -stratum.change)


def _intervals(
    test: TestSet, arms: Sequence[Arm], mask: NDArray[np.bool_], seed: int
) -> dict[str, tuple[float, float]]:
    found = score_intervals(test, arms, seed, mask)
    return {arm.label: found[id(arm)] for arm in arms if id(arm) in found}


def _thirds(test: TestSet, answers: ScoredAnswers) -> list[str]:
    """Three parts of equal size by characters; the limits are part of the name."""
    chars = answers.prompt_chars[answers.positions(test.ids)]
    low, high = (int(q) for q in np.quantile(chars, [1 / 3, 2 / 3]))
    names = (f"1: up to {low} chars", f"2: {low + 1}–{high}", f"3: over {high}")
    return [names[0] if c <= low else names[1] if c <= high else names[2] for c in chars]


def _levels(values: Sequence[str]) -> list[str] | None:
    """Values as they are, counts in bands, or None for what has too many or no values."""
    values = _one_spelling(values)
    distinct = set(values) - {""}
    if len(distinct) < 2:
        return None
    if len(distinct) <= MOST_LEVELS:
        return [value or "(none)" for value in values]
    if all(value.isdigit() for value in distinct):
        return [_band(int(value)) if value else "(none)" for value in values]
    return None


def _one_spelling(values: Sequence[str]) -> list[str]:
    """Return values in the commonest spelling of each: metrics compare labels so, too."""
    spelt = spellings(values, plain)
    names = {key: kinds.most_common(1)[0][0] for key, kinds in spelt.items()}
    return [names[plain(value)] for value in values]


def _band(count: int) -> str:
    for low, high in BANDS:
        if high is None or count <= high:
            return f"{low}+" if high is None else str(low) if low == high else f"{low}–{high}"
    return ""


def _stratum(
    test: TestSet,
    contrast: Contrast,
    name: str,
    values: Sequence[str],
    tested: Mapping[tuple[str, str], Tested | None],
) -> Stratum:
    against, column = contrast.large or contrast.base, np.array(values)
    arms = [arm for arm in contrast.shown if arm.scores is not None]
    levels = []
    for value in sorted(set(values), key=_order):
        mask = column == value
        means = {arm.label: test.mean(arm, mask) for arm in arms}
        levels.append(Level(value, int(mask.sum()), means, tested.get((name, value))))
    return Stratum(name, against.label if against else None, tuple(levels))


def _order(value: str) -> tuple[int, str]:
    digits = "".join(c for c in value.split("–")[0] if c.isdigit())
    return (int(digits) if digits else -1, value)


def _tested(
    test: TestSet, contrast: Contrast, columns: Mapping[str, Sequence[str]], seed: int
) -> dict[tuple[str, str], Tested | None]:
    """Tests at the levels that have examples enough, by name of the stratum and level."""
    small, against = contrast.small, contrast.large or contrast.base
    if small.scores is None or against is None or against.scores is None:
        return {}
    families = [
        [name for name in columns if name == STRATUM],
        [name for name in columns if name != STRATUM],
    ]
    families = [names for names in families if names]
    found: dict[tuple[str, str], Tested | None] = {}
    for names in families:
        keys, cases = [], []
        for name in names:
            column = np.array(columns[name])
            for value in sorted(set(columns[name])):
                if (mask := column == value).sum() >= FEWEST:
                    keys.append((name, value))
                    cases.append(Case(rows(small), rows(against), mask))
        found |= dict(zip(keys, compare_cases(test, cases, seed, len(families)), strict=True))
    return found


@dataclass(frozen=True)
class Reversal:
    """A level at which the sign of the difference is shown to be another than elsewhere."""

    stratum: Stratum
    level: Level
    tested: Tested

    @property
    def where(self) -> str:
        return self.stratum.where(self.level.value)


def reversals(strata: Sequence[Stratum], wins: bool, loses: bool) -> list[Reversal]:
    """Levels at which the one that is ahead is shown to be behind; by frequency first.

    ``wins`` and ``loses``: what is shown over all examples. Where neither is, a stratum counts in
    which both signs are shown, and the levels are those at which the tuned model is behind.
    """
    found = []
    for stratum in strata:
        shown = [(level, level.tested) for level in stratum.levels if level.tested is not None]
        ahead = [Reversal(stratum, level, t) for level, t in shown if t.wins]
        behind = [Reversal(stratum, level, t) for level, t in shown if t.loses]
        if wins or (behind and ahead and not loses):
            found += behind
        elif loses:
            found += ahead
    return found


def hybrid_of(test: TestSet, contrast: Contrast, seed: int = 0) -> RoutingCurve | None:
    """Routing by the small model's confidence; None if unknown.

    Each seed's model is routed by its own confidence, and the curves are averaged: nobody deploys
    the mean of several models.
    """
    if contrast.large is None or contrast.large.scores is None or contrast.small.scores is None:
        return None
    confidences = confidences_of(test, contrast.small)
    if confidences is None or len(test.ids) < 10:
        return None
    higher = test.direction == "max"
    # Multiplied by their weights, the plain means of a curve are the weighted ones.
    weights = 1.0 if test.weights is None else test.weights / test.weights.mean()
    large = contrast.large.scores[0] * weights
    routed = [
        routing_curve(sure, scores * weights, large, higher_is_better=higher, seed=seed)
        for sure, scores in zip(confidences, contrast.small.scores, strict=True)
    ]
    return average_curve(routed, higher_is_better=higher)


def confidences_of(test: TestSet, arm: Arm) -> FloatArray | None:
    """How sure an arm is, [S, N]; None where not computed.

    The mean log-probability of the generated tokens; of answers that are read by likelihood the
    candidate's share of the probability.
    """
    answers = [m.answers for m in arm.members if m.answers is not None]
    by_likelihood = test.primary.partition("/")[2] in LIKELIHOOD
    sure = [a.candidate_probability if by_likelihood else a.confidence for a in answers]
    places = [a.positions(test.ids) for a in answers]
    matrix = np.stack([values[at] for values, at in zip(sure, places, strict=True)])
    return matrix if len(answers) == len(arm.members) and np.isfinite(matrix).all() else None


# First category of every chapter of ICD-10 (WHO) and ICD-10-CM, with its numeral and subject.
CHAPTERS = (
    ("A00", "I infections"), ("C00", "II neoplasms"), ("D50", "III blood"),
    ("E00", "IV metabolism"), ("F00", "V mind"), ("G00", "VI nerves"), ("H00", "VII eye"),
    ("H60", "VIII ear"), ("I00", "IX circulation"), ("J00", "X breathing"), ("K00", "XI digestion"),
    ("L00", "XII skin"), ("M00", "XIII bones, muscles"), ("N00", "XIV urinary, genital"),
    ("O00", "XV pregnancy"), ("P00", "XVI newborns"), ("Q00", "XVII malformations"),
    ("R00", "XVIII symptoms"), ("S00", "XIX injury"), ("V00", "XX causes"), ("Z00", "XXI contacts"),
)  # fmt: skip
STARTS = [start for start, _ in CHAPTERS]
NONE = "no code"
SPECIAL = "XXII special"


@dataclass(frozen=True)
class Confusion:
    """Counts [reference chapter][answered chapter] of one model; the last column is no code."""

    model: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


def chapter(code: str) -> str:
    """Chapter of a code without its dot, such as ``E119``."""
    if code[:1] == "U":
        return SPECIAL
    return CHAPTERS[max(bisect_right(STARTS, code[:3]) - 1, 0)][1]


def confusions(test: TestSet, arms: list[Arm]) -> list[Confusion]:
    """Confusion by chapter of each arm's first seed; empty where answers are no codes."""
    if not test.primary.startswith("icd10/"):
        return []
    found = [c for c in arms if c.first.answers is not None]
    return [_confusion(test, arm) for arm in found]


def _confusion(test: TestSet, arm: Arm) -> Confusion:
    catalogue = _catalogue(arm)
    lines = arm.first.answers.lines() if arm.first.answers else {}
    counts: Counter[tuple[str, str]] = Counter()
    for row in (lines[key] for key in test.ids if key in lines):
        counts[_chapter_in(row["reference"], catalogue), _chapter_in(row["text"], catalogue)] += 1
    order = [name for _, name in CHAPTERS] + [SPECIAL, NONE]
    rows = tuple(name for name in order if any(a == name for a, _ in counts))
    columns = tuple(name for name in order if any(name in cell for cell in counts))
    table = tuple(tuple(counts[a, b] for b in columns) for a in rows)
    return Confusion(arm.label, rows, columns, table)


@lru_cache(maxsize=10_000)
def _chapter_in(text: str, catalogue: str) -> str:
    """Chapter of the code that the metric reads from ``text``.

    The catalogue, which takes seconds to load, is asked only where there are several codes.
    """
    from sizewise.data.tokens.reasoning import strip_reasoning
    from sizewise.metrics.reading.codes import extract_code, find_codes, load_catalogue

    several = len(find_codes(strip_reasoning(text))) > 1
    code = extract_code(text, load_catalogue(catalogue).contains if several else None)
    return chapter(code) if code else NONE


def _catalogue(arm: Arm) -> str:
    node = (arm.first.run.outcome.config.get("metric") or {}).get("icd10") or {}
    return str(node.get("catalogue", "icd10cm")) if isinstance(node, dict) else "icd10cm"
