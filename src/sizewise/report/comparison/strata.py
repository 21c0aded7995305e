"""Where specialisation wins and where size does: scores by kind of example, confusion of codes."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sizewise.report.comparison.arms import Arm, TestSet
from sizewise.report.comparison.pairs import rows
from sizewise.report.comparison.runs import Answers
from sizewise.report.comparison.verdict import Contrast
from sizewise.statistics.bootstrap import difference_intervals
from sizewise.statistics.sides import Sides, sides_of

MOST_LEVELS = 12
FEWEST = 5
BANDS = ((0, 0), (1, 4), (5, 19), (20, 99), (100, None))
PROMPT_LENGTH = "prompt length"


@dataclass(frozen=True)
class Level:
    """One value of a stratum: its examples, the mean score of each model, and the gain.

    ``gain`` is how much better the tuned model is than ``against``, with its 95 % interval; all
    three are None where there are too few examples. Not corrected for the number of strata.
    """

    value: str
    examples: int
    means: dict[str, float]
    gain: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Stratum:
    """One breakdown; ``against`` is the label of the model that gains are over."""

    name: str
    against: str | None
    levels: tuple[Level, ...]


def strata_of(test: TestSet, contrast: Contrast, seed: int = 0) -> list[Stratum]:
    """Break the scores of the contrast down by prompt length and every stratum of the data."""
    answers = contrast.small.first.answers
    if answers is None or not test.ids:
        return []
    columns = {PROMPT_LENGTH: _thirds(test, answers)}
    positions = answers.positions(test.ids)
    for name, values in answers.strata.items():
        levels = _levels([values[i] for i in positions])
        if levels is not None:
            columns[name] = levels
    found = [_stratum(test, contrast, name, values, seed) for name, values in columns.items()]
    return [stratum for stratum in found if len(stratum.levels) > 1]


def _thirds(test: TestSet, answers: Answers) -> list[str]:
    """Three parts of equal size by characters; the limits are part of the name."""
    chars = answers.prompt_chars[answers.positions(test.ids)]
    low, high = (int(q) for q in np.quantile(chars, [1 / 3, 2 / 3]))
    names = (f"1: up to {low} chars", f"2: {low + 1}–{high}", f"3: over {high}")
    return [names[0] if c <= low else names[1] if c <= high else names[2] for c in chars]


def _levels(values: Sequence[str]) -> list[str] | None:
    """Values as they are, counts in bands, or None for what has too many or no values."""
    distinct = set(values) - {""}
    if len(distinct) < 2:
        return None
    if len(distinct) <= MOST_LEVELS:
        return [value or "(none)" for value in values]
    if all(value.isdigit() for value in distinct):
        return [_band(int(value)) if value else "(none)" for value in values]
    return None


def _band(count: int) -> str:
    for low, high in BANDS:
        if high is None or count <= high:
            return f"{low}+" if high is None else str(low) if low == high else f"{low}–{high}"
    return ""


def _stratum(
    test: TestSet, contrast: Contrast, name: str, values: Sequence[str], seed: int
) -> Stratum:
    against, column = contrast.large or contrast.base, np.array(values)
    masks = {value: column == value for value in sorted(set(values), key=_order)}
    gains = _gains(test, contrast.small, against, masks, seed) if against is not None else {}
    levels = [
        Level(
            value,
            int(mask.sum()),
            {arm.label: test.mean(arm, mask) for arm in contrast.shown if arm.scores is not None},
            *gains.get(value, ()),
        )
        for value, mask in masks.items()
    ]
    return Stratum(name, against.label if against else None, tuple(levels))


def _order(value: str) -> tuple[int, str]:
    digits = "".join(c for c in value.split("–")[0] if c.isdigit())
    return (int(digits) if digits else -1, value)


def _gains(
    test: TestSet, small: Arm, against: Arm, masks: Mapping[str, np.ndarray], seed: int
) -> dict[str, tuple[float, float, float]]:
    """Gain and its interval at the levels that have examples enough."""
    sides: dict[str, Sides] = {}
    for value, mask in masks.items():
        groups = [group for group, inside in zip(test.groups, mask, strict=True) if inside]
        if len(groups) >= FEWEST and len(set(groups)) > 1:
            a, b = rows(small)[..., mask], rows(against)[..., mask]
            weights = None if test.weights is None else test.weights[mask]
            sides[value] = sides_of(a, b, groups, weights=weights)
    intervals = difference_intervals(list(sides.values()), n_resamples=4_000, seed=seed)
    found = {}
    for (value, pair), interval in zip(sides.items(), intervals, strict=True):
        low, high = sorted((test.sign * interval.low, test.sign * interval.high))
        found[value] = (test.sign * float(pair.differences.mean()), low, high)
    return found


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
    from sizewise.metrics.codes import extract_code, find_codes, load_catalogue

    several = len(find_codes(strip_reasoning(text))) > 1
    code = extract_code(text, load_catalogue(catalogue).contains if several else None)
    return chapter(code) if code else NONE


def _catalogue(arm: Arm) -> str:
    node = (arm.first.run.outcome.config.get("metric") or {}).get("icd10") or {}
    return str(node.get("catalogue", "icd10cm")) if isinstance(node, dict) else "icd10cm"
