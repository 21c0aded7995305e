"""Interactive charts (plotly) of quality over the rank and over the training examples."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from sizewise.report import words
from sizewise.report.candidates import TestSet
from sizewise.report.charts import LARGE, TUNED, ZERO, layout
from sizewise.report.curves import Curve, LearningCurve
from sizewise.report.points import Point

SERIES = (TUNED, ZERO, LARGE, "#CC79A7", "#E69F00", "#56B4E9")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


def curves_chart(
    curves: Sequence[Curve], x_title: str, test: TestSet, scale: words.Scale, log: bool
) -> go.Figure:
    """Quality over one number, a line per curve."""
    unit = 100.0 if scale.percent else 1.0
    figure = go.Figure()
    for number, curve in enumerate(curves):
        colour = SERIES[number % len(SERIES)]
        points = curve.points
        figure.add_trace(
            go.Scatter(
                name=escape(curve.name),
                x=list(curve.x),
                y=[unit * p.score for p in points],
                mode="lines+markers",
                line={"color": colour, "width": 2, "dash": DASHES[number % len(DASHES)]},
                marker={"color": colour, "size": 9, "symbol": SYMBOLS[number % len(SYMBOLS)]},
                error_y=_errors(points, unit),
                hovertext=[f"<b>{escape(p.label)}</b><br>{scale.value(p.score)}" for p in points],
                hoverinfo="text",
            )
        )
    ticks = sorted({x for curve in curves for x in curve.x})
    figure.update_layout(
        **layout(
            height=340,
            xaxis={
                "type": "log" if log else "linear",
                "title": {"text": x_title},
                "tickvals": ticks,
                "ticktext": [f"{tick:,.0f}" for tick in ticks],
            },
            yaxis={"title": {"text": escape(test.primary) + (" (%)" if scale.percent else "")}},
        )
    )
    return figure


def _errors(points: Sequence[Point], unit: float) -> dict[str, Any]:
    return {
        "type": "data",
        "array": [unit * ((p.high if p.high is not None else p.score) - p.score) for p in points],
        "arrayminus": [
            unit * (p.score - (p.low if p.low is not None else p.score)) for p in points
        ],
        "thickness": 1,
        "width": 0,
    }


def learning_chart(
    learning: Sequence[LearningCurve], test: TestSet, scale: words.Scale
) -> go.Figure:
    """Learning curves with the level of the large zero-shot model and where it is overtaken."""
    unit = 100.0 if scale.percent else 1.0
    figure = curves_chart([c.curve for c in learning], "Training examples", test, scale, log=True)
    found = next((c for c in learning if c.overtaking is not None), None)
    if found is not None and found.overtaking is not None:
        level = unit * found.overtaking.level_mean
        line = {"color": LARGE, "width": 1.5, "dash": "dash"}
        figure.add_hline(
            y=level, line=line, annotation_text=escape(found.large or ""),
            annotation_position="bottom right", annotation_font_color=LARGE,
        )  # fmt: skip
    return figure
