"""Single examples to look at: a stated sample, with the answers of base and tuned models."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from sizewise.report.comparison.arms import Arm, TestSet
from sizewise.report.comparison.pairs import representatives
from sizewise.report.comparison.verdict import Contrast

SAMPLE = 120
MOST_MODELS = 4
LONGEST = 4_000
ALL_BYTES = 1_200_000


@dataclass(frozen=True)
class Sample:
    """Rows for the browser of examples.

    ``models`` are the labels of the answers in each row; ``tuned`` says which of them are tuned
    and ``base`` names, for each tuned one, the position of its own base (or None). ``note`` says
    how the sample was drawn.
    """

    models: list[str]
    tuned: list[bool]
    base: list[int | None]
    rows: list[dict[str, Any]]
    total: int
    note: str


def draw_sample(test: TestSet, contrast: Contrast | None, seed: int = 0) -> Sample:
    """Draw examples: half of those where tuning changed the outcome, half of all, by a fixed seed.

    Texts longer than 4,000 characters are cut, and fewer rows are kept if they are large in all.
    """
    models = _models(test, contrast)
    if not models or not test.ids:
        return Sample([], [], [], [], len(test.ids), "")
    chosen = _choose(test, contrast, seed)
    texts = [_texts(c) for c in models]
    rows = [_row(test, models, texts, position) for position in chosen]
    kept = _within(rows, ALL_BYTES)
    positions = {c.label: i for i, c in enumerate(models)}
    bases = [test.zero_shot_of(c) if c.tuned else None for c in models]
    return Sample(
        models=[c.label for c in models],
        tuned=[c.tuned for c in models],
        base=[positions.get(b.label) if b is not None else None for b in bases],
        rows=kept,
        total=len(test.ids),
        note=_note(len(kept), len(test.ids)),
    )


def _note(kept: int, total: int) -> str:
    if kept == total:
        return f"All {total} test examples."
    return (
        f"A sample of {kept} of the {total:,} test examples, drawn with a fixed seed: up to half "
        "where base and tuned model differ in being right, the rest from all. All answers are in "
        "the runs' predictions files."
    )


def _models(test: TestSet, contrast: Contrast | None) -> list[Arm]:
    if contrast is None:
        return [c for c in test.arms if c.first.answers is not None][:MOST_MODELS]
    found = contrast.shown
    for arm in representatives(test):
        if len(found) < MOST_MODELS and all(arm is not c for c in found):
            found.append(arm)
    return [c for c in found if c.first.answers is not None]


def _choose(test: TestSet, contrast: Contrast | None, seed: int) -> list[int]:
    rng = np.random.default_rng(seed)
    total = len(test.ids)
    order = [int(i) for i in rng.permutation(total)]
    changed: list[int] = []
    if contrast is not None and contrast.base is not None:
        a, b = contrast.small.scores, contrast.base.scores
        if a is not None and b is not None:
            changed = [i for i in order if a[0, i] != b[0, i]]
    picked = dict.fromkeys(changed[: SAMPLE // 2])
    for position in order:
        if len(picked) >= min(SAMPLE, total):
            break
        picked.setdefault(position)
    return sorted(picked)


def _texts(arm: Arm) -> dict[str, dict[str, Any]]:
    answers = arm.first.answers
    if answers is None:
        return {}
    lines = answers.path.read_text(encoding="utf-8").split("\n")
    return {row["id"]: row for row in (json.loads(line) for line in lines if line)}


def _row(
    test: TestSet, models: list[Arm], texts: list[dict[str, dict[str, Any]]], position: int
) -> dict[str, Any]:
    key = test.ids[position]
    found = [rows[key] for rows in texts]
    scores = [c.scores for c in models]
    return {
        "id": key,
        "prompt": _cut(found[0]["prompt"]),
        "reference": _cut(found[0]["reference"]),
        "strata": {k: v for k, v in found[0]["strata"].items() if v},
        "answers": [_cut(row["text"]) for row in found],
        "scores": [None if s is None else round(float(s[0, position]), 4) for s in scores],
    }


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + " …(cut)"


def _within(rows: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    sizes = np.cumsum([len(json.dumps(row, ensure_ascii=False).encode()) for row in rows])
    return rows[: int(np.searchsorted(sizes, most, side="right"))]
