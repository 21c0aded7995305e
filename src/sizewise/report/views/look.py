"""How figures look: the common layout, colours by base, shapes by method."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go

from sizewise import words
from sizewise.palette import SERIES
from sizewise.report.comparison.arms import CLASSICAL, ENCODER, ZERO_SHOT, Arm, TestSet
from sizewise.report.comparison.points import Point

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
UP_WITHOUT_GRID = {"autorange": "reversed", "automargin": True, "showgrid": False}
MOST_NAMES = 14


@dataclass(frozen=True)
class Shape:
    """The mark of a method, for plotly and for matplotlib."""

    name: str
    symbol: str
    marker: str


UNTOUCHED = Shape("zero-shot", "square", "s")
BASELINE = Shape("baseline without a language model", "cross", "P")
FITTED_ENCODER = Shape("fine-tuned encoder", "triangle-down", "v")
METHODS = {
    "lora": Shape("LoRA", "circle", "o"),
    "dora": Shape("DoRA", "diamond", "D"),
    "rslora": Shape("rsLoRA", "triangle-up", "^"),
    "full": Shape("fully tuned", "star", "*"),
}
OTHER = Shape("tuned", "hexagon", "h")


def shape_of(arm: Arm) -> Shape:
    """The mark of how an arm was made."""
    fixed = {ZERO_SHOT: UNTOUCHED, CLASSICAL: BASELINE, ENCODER: FITTED_ENCODER}
    return fixed.get(arm.kind) or METHODS.get(arm.model.lora_method, OTHER)


def shapes_of(points: Sequence[Point]) -> list[Shape]:
    """The marks of these points, each once: untouched models first, then as above."""
    order = [UNTOUCHED, *METHODS.values(), OTHER, FITTED_ENCODER, BASELINE]
    there = {shape_of(point.arm) for point in points}
    return [shape for shape in order if shape in there]


def colours_of(points: Sequence[Point]) -> dict[str, str]:
    """Base → its colour, from the smallest base to the largest; baselines have none."""
    bases = sorted({(p.arm.size, p.arm.model.name) for p in points if p.arm.kind != CLASSICAL})
    names = list(dict.fromkeys(name for _, name in bases))
    return {name: SERIES[i % len(SERIES)] for i, name in enumerate(names)}


def name_of(arm: Arm) -> str:
    """The name of an arm in a picture: its label, of a baseline in words."""
    return words.spelled(arm.label) if arm.kind == CLASSICAL else arm.label


def short_name(point: Point) -> str:
    """The name without its base, which the colour says: ``LoRA r=16``."""
    return point.label.removeprefix(point.arm.model.name).strip() or point.label


def score_title(test: TestSet, scale: words.Scale) -> str:
    """Name of the axis of the score: ``lenient match (ICD-10), %``."""
    unit = ", %" if scale.percent else ""
    return words.score_name(test.primary) + unit + (", less is better" if test.sign < 0 else "")


def layout(**more: Any) -> dict[str, Any]:
    """Common layout: no title, no ground of its own, space for the axes."""
    base = {
        "margin": {"l": 56, "r": 24, "t": 12, "b": 48},
        "height": 400,
        "showlegend": True,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "hovermode": "closest",
    }
    return {**base, **more}


def axis(title: str, **more: Any) -> dict[str, Any]:
    return {"title": {"text": escape(title)}, **more}


def scatter(
    points: Sequence[Point], x: Iterable[float | None], scale: words.Scale, **more: Any
) -> go.Scatter:
    hover = [f"<b>{escape(p.label)}</b><br>{scale.value(p.score)}" for p in points]
    more = {"hovertext": hover, "hoverinfo": "text", **more}
    return go.Scatter(x=list(x), y=[scale.unit * p.score for p in points], **more)


def errors(points: Sequence[Point], unit: float, thickness: float) -> dict[str, Any]:
    up = [0.0 if p.high is None else unit * (p.high - p.score) for p in points]
    down = [0.0 if p.low is None else unit * (p.score - p.low) for p in points]
    bars = {"type": "data", "array": up, "arrayminus": down}
    return {**bars, "thickness": thickness, "width": 0}
