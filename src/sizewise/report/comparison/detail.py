"""The detailed views of one test set, and a stated sample of examples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sizewise.report.comparison.arms import Arm, TestSet
from sizewise.report.comparison.contrast import Contrast, find_contrast
from sizewise.report.comparison.points import (
    Curve,
    LearningCurve,
    Point,
    learning_curves,
    rank_curves,
    scaling_of,
)
from sizewise.report.comparison.readings import Calibration, calibration_of
from sizewise.report.comparison.selection import one_per_question
from sizewise.report.comparison.strata import (
    Confusion,
    Stratum,
    confusions,
    hybrid_of,
    strata_of,
    with_intervals,
)
from sizewise.report.comparison.verdict import Verdict
from sizewise.statistics.routing import RoutingCurve
from sizewise.statistics.scaling import ScalingMatch
from sizewise.words import cut

SAMPLE = 120
MOST_MODELS = 4
LONGEST = 4_000
ALL_BYTES = 1_200_000


@dataclass(frozen=True)
class Views:
    """What is shown beside table and verdict; what the runs do not allow is None or empty."""

    contrast: Contrast | None
    strata: list[Stratum]
    ranks: list[Curve]
    learning: list[LearningCurve]
    scaling: ScalingMatch | None
    hybrid: RoutingCurve | None
    confusion: list[Confusion]
    calibration: list[Calibration]
    sample: Sample


def make_views(test: TestSet, points: Sequence[Point], verdict: Verdict, seed: int = 0) -> Views:
    contrast = find_contrast(test, verdict.pair)
    sample = draw_sample(test, contrast, seed)
    if contrast is None:
        return Views(None, [], [], [], None, None, [], [], sample)
    return Views(
        contrast=contrast,
        strata=with_intervals(
            test, contrast, verdict.strata or strata_of(test, contrast, seed), seed
        ),
        ranks=rank_curves(test, points),
        learning=learning_curves(test, points, contrast, seed),
        scaling=scaling_of(test, contrast, seed),
        hybrid=hybrid_of(test, contrast, seed),
        confusion=confusions(test, [c for c in (contrast.base, contrast.small) if c is not None]),
        calibration=[c for arm in contrast.shown if (c := calibration_of(test, arm)) is not None],
        sample=sample,
    )


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
    texts = [c.first.answers.lines() for c in models if c.first.answers is not None]
    rows = [_row(test, models, texts, position) for position in chosen]
    sizes = np.cumsum([len(json.dumps(row, ensure_ascii=False).encode()) for row in rows])
    rows = rows[: int(np.searchsorted(sizes, ALL_BYTES, side="right"))]
    positions = {c.label: i for i, c in enumerate(models)}
    bases = [test.zero_shot_of(c) if c.tuned else None for c in models]
    return Sample(
        models=[c.label for c in models],
        tuned=[c.tuned for c in models],
        base=[positions.get(b.label) if b is not None else None for b in bases],
        rows=rows,
        total=len(test.ids),
        note=_note(len(rows), len(test.ids)),
    )


def _note(number: int, total: int) -> str:
    if number == total:
        return f"All {total} test examples."
    return (
        f"A sample of {number} of the {total:,} test examples, drawn with a fixed seed: up to half "
        "where base and tuned model differ in being right, the rest from all. All answers are in "
        "the runs' predictions files."
    )


def _models(test: TestSet, contrast: Contrast | None) -> list[Arm]:
    if contrast is None:
        return [c for c in test.arms if c.first.answers is not None][:MOST_MODELS]
    found = contrast.shown
    for arm in one_per_question(test):
        if len(found) < MOST_MODELS and all(arm is not c for c in found):
            found.append(arm)
    return [c for c in found if c.first.answers is not None]


def _choose(test: TestSet, contrast: Contrast | None, seed: int) -> list[int]:
    order = [int(i) for i in np.random.default_rng(seed).permutation(len(test.ids))]
    changed: list[int] = []
    if contrast is not None and contrast.base is not None:
        a, b = contrast.small.scores, contrast.base.scores
        if a is not None and b is not None:
            changed = [i for i in order if a[0, i] != b[0, i]]
    return sorted(list(dict.fromkeys([*changed[: SAMPLE // 2], *order]))[:SAMPLE])


def _row(
    test: TestSet, models: list[Arm], texts: list[dict[str, dict[str, Any]]], position: int
) -> dict[str, Any]:
    key = test.ids[position]
    found = [rows[key] for rows in texts]
    scores = [c.scores for c in models]
    return {
        "id": key,
        "prompt": cut(found[0]["prompt"], LONGEST),
        "reference": cut(found[0]["reference"], LONGEST),
        "strata": {k: v for k, v in found[0]["strata"].items() if v},
        "answers": [cut(row["text"], LONGEST) for row in found],
        "scores": [None if s is None else round(float(s[0, position]), 4) for s in scores],
    }
