"""Confusion of ICD-10 codes by chapter: where wrong answers go."""

from __future__ import annotations

import json
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache

from sizewise.report.candidates import Candidate, TestSet

# First category of every chapter of ICD-10 (WHO) and ICD-10-CM, with its numeral and subject.
CHAPTERS = (
    ("A00", "I infections"),
    ("C00", "II neoplasms"),
    ("D50", "III blood"),
    ("E00", "IV metabolism"),
    ("F00", "V mind"),
    ("G00", "VI nerves"),
    ("H00", "VII eye"),
    ("H60", "VIII ear"),
    ("I00", "IX circulation"),
    ("J00", "X breathing"),
    ("K00", "XI digestion"),
    ("L00", "XII skin"),
    ("M00", "XIII bones, muscles"),
    ("N00", "XIV urinary, genital"),
    ("O00", "XV pregnancy"),
    ("P00", "XVI newborns"),
    ("Q00", "XVII malformations"),
    ("R00", "XVIII symptoms"),
    ("S00", "XIX injury"),
    ("V00", "XX causes"),
    ("Z00", "XXI contacts"),
)
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


def confusions(test: TestSet, candidates: list[Candidate]) -> list[Confusion]:
    """Confusion by chapter of each candidate's first seed; empty where answers are no codes."""
    if not test.primary.startswith("icd10/"):
        return []
    found = [c for c in candidates if c.first.answers is not None]
    return [_confusion(test, candidate) for candidate in found]


def _confusion(test: TestSet, candidate: Candidate) -> Confusion:
    catalogue = _catalogue(candidate)
    wanted = set(test.ids)
    counts: dict[tuple[str, str], int] = {}
    answers = candidate.first.answers
    text = answers.path.read_text(encoding="utf-8") if answers else ""
    for line in text.split("\n"):
        row: dict[str, str] = json.loads(line) if line else {}
        if row.get("id") in wanted:
            cell = (_chapter_in(row["reference"], catalogue), _chapter_in(row["text"], catalogue))
            counts[cell] = counts.get(cell, 0) + 1
    order = [name for _, name in CHAPTERS] + [SPECIAL, NONE]
    rows = tuple(name for name in order if any(a == name for a, _ in counts))
    columns = tuple(name for name in order if any(name in cell for cell in counts))
    table = tuple(tuple(counts.get((a, b), 0) for b in columns) for a in rows)
    return Confusion(candidate.label, rows, columns, table)


@lru_cache(maxsize=10_000)
def _chapter_in(text: str, catalogue: str) -> str:
    """Chapter of the code that the metric reads from ``text``.

    The catalogue, which takes seconds to load, is asked only where there are several codes.
    """
    from sizewise.metrics.codes import extract_code, find_codes, load_catalogue, strip_reasoning

    several = len(find_codes(strip_reasoning(text))) > 1
    code = extract_code(text, load_catalogue(catalogue).contains if several else None)
    return chapter(code) if code else NONE


def _catalogue(candidate: Candidate) -> str:
    node = (candidate.first.run.outcome.config.get("metric") or {}).get("icd10") or {}
    return str(node.get("catalogue", "icd10cm")) if isinstance(node, dict) else "icd10cm"
