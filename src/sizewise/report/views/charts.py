"""Interactive charts (plotly) of one test set, but for the picture of the question."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sizewise import words
from sizewise.palette import INK, LARGE, MUTED, SERIES, TUNED, ZERO
from sizewise.report.comparison.arms import ZERO_SHOT, TestSet
from sizewise.report.comparison.contrast import Contrast
from sizewise.report.comparison.points import Curve, LearningCurve, Point
from sizewise.report.comparison.readings import Calibration
from sizewise.report.comparison.strata import Confusion, Level, Stratum
from sizewise.report.views.look import (
    DASHES,
    SYMBOLS,
    UP_WITHOUT_GRID,
    axis,
    errors,
    layout,
    scatter,
    score_title,
)
from sizewise.statistics.routing import RoutingCurve
from sizewise.statistics.scaling import ScalingMatch


def curves_chart(
    curves: Sequence[Curve],
    x_title: str,
    test: TestSet,
    scale: words.Scale,
    log: bool,
    colours: Mapping[str, str],
) -> go.Figure:
    """Quality over one number, a line per curve; ``colours`` of the bases as in ``look``."""
    figure = go.Figure()
    for number, curve in enumerate(curves):
        colour = colours[curve.points[0].arm.model.name]
        dash, symbol = DASHES[number % len(DASHES)], SYMBOLS[number % len(SYMBOLS)]
        figure.add_trace(
            scatter(
                curve.points,
                curve.x,
                scale,
                name=escape(curve.name),
                mode="lines+markers",
                line={"color": colour, "width": 2, "dash": dash},
                marker={"color": colour, "size": 9, "symbol": symbol},
                error_y=errors(curve.points, scale.unit, 1),
            )
        )
    ticks = _apart(sorted({x for curve in curves for x in curve.x}), log)
    named: dict[str, Any] = {"tickvals": ticks, "ticktext": [f"{tick:,.0f}" for tick in ticks]}
    x, y = (
        axis(x_title, type="log" if log else "linear", **named),
        axis(score_title(test, scale)),
    )
    figure.update_layout(**layout(height=340, xaxis=x, yaxis=y))
    return figure


def _apart(values: Sequence[float], log: bool) -> list[float]:
    """The values without those that would be written over the one before."""
    if not values:
        return []
    places = np.log(values) if log else np.asarray(values)
    least = 0.05 * (places[-1] - places[0])
    kept = [0]
    for i in range(1, len(values)):
        if places[i] - places[kept[-1]] >= least:
            kept.append(i)
    return [values[i] for i in kept]


def learning_chart(
    learning: Sequence[LearningCurve],
    test: TestSet,
    scale: words.Scale,
    colours: Mapping[str, str],
) -> go.Figure:
    """Learning curves with the level of the large zero-shot model and where it is overtaken."""
    curves = [c.curve for c in learning]
    figure = curves_chart(curves, "Training examples", test, scale, log=True, colours=colours)
    found = next((c for c in learning if c.overtaking is not None), None)
    if found is not None and found.overtaking is not None:
        figure.add_hline(
            y=scale.unit * found.overtaking.level_mean,
            line={"color": LARGE, "width": 1.5, "dash": "dash"},
            annotation_text=escape(found.large or ""),
            annotation_position="bottom right",
            annotation_font_color=LARGE,
        )
    return figure


def _score(scale: words.Scale) -> str:
    return "score, %" if scale.percent else "score"


def strata_chart(stratum: Stratum, contrast: Contrast, scale: words.Scale) -> go.Figure:
    names = [f"{escape(level.value)} (n={level.examples})" for level in stratum.levels]
    models = ((contrast.small, TUNED), (contrast.base, ZERO), (contrast.large, LARGE))
    colours = {arm.label: colour for arm, colour in models if arm is not None}
    figure = go.Figure()
    for label, colour in colours.items():
        values = [level.means.get(label) for level in stratum.levels]
        figure.add_trace(
            go.Bar(
                name=escape(label),
                y=names,
                x=[None if v is None else scale.unit * v for v in values],
                orientation="h",
                marker={"color": colour, "line": {"width": 0}},
                error_x=_spread(stratum, label, scale.unit),
                hovertext=[_level_hover(level, label, scale) for level in stratum.levels],
                hoverinfo="text",
            )
        )
    height = 110 + (18 * len(colours) + 14) * len(names)
    margin = {"l": 8, "r": 16, "t": 12, "b": 44}
    axes = {"xaxis": axis(_score(scale)), "yaxis": UP_WITHOUT_GRID}
    figure.update_layout(
        **layout(height=height, barmode="group", bargap=0.28, margin=margin, **axes)
    )
    return figure


def _spread(stratum: Stratum, label: str, unit: float) -> dict[str, Any]:
    """Intervals of the bars of one model; of no length where there is none."""
    up, down = [], []
    for level in stratum.levels:
        mean = level.means.get(label, 0.0)
        low, high = level.intervals.get(label, (mean, mean))
        up.append(unit * (high - mean))
        down.append(unit * (mean - low))
    bars = {"type": "data", "array": up, "arrayminus": down}
    return {**bars, "thickness": 1.3, "width": 3, "color": INK}


def _level_hover(level: Level, label: str, scale: words.Scale) -> str:
    text = f"{escape(label)}<br>{scale.value(level.means.get(label))}"
    if label not in level.intervals:
        return text
    low, high = level.intervals[label]
    return f"{text} ({scale.value(low)} to {scale.value(high)})"


def calibration_chart(found: Sequence[Calibration]) -> go.Figure:
    """Share of right answers over their probability, per bin of equal mass; even is calibrated."""
    figure = go.Figure(
        go.Scatter(
            x=[0, 100], y=[0, 100], mode="lines", name="calibrated", hoverinfo="skip",
            line={"color": MUTED, "width": 1, "dash": "dot"},
        )
    )  # fmt: skip
    for place, entry in enumerate(found):
        hover = [
            f"{escape(entry.model)}<br>sure of {100 * sure:.0f} %, right in {100 * right:.0f} %"
            f"<br>{words.plural(count, 'answer')}"
            for sure, right, count in entry.bins
        ]
        figure.add_trace(
            go.Scatter(
                x=[100 * sure for sure, _, _ in entry.bins],
                y=[100 * right for _, right, _ in entry.bins],
                mode="lines+markers", name=escape(entry.model), hovertext=hover, hoverinfo="text",
                line={"color": SERIES[place % len(SERIES)]},
            )
        )  # fmt: skip
    axes = {"xaxis": axis("Probability of the answer (%)"), "yaxis": axis("Right (%)")}
    figure.update_layout(**layout(**axes))
    return figure


def confusion_chart(confusion: Confusion) -> go.Figure:
    """Share of the answers by chapter, for every chapter of the reference."""
    counts = np.array(confusion.counts, dtype=float)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    hover = [
        [
            f"{row} answered as {column}<br>{int(counts[i, j])} of {int(totals[i, 0])}"
            for j, column in enumerate(confusion.columns)
        ]
        for i, row in enumerate(confusion.rows)
    ]
    figure = go.Figure(
        go.Heatmap(
            z=shares.round(4).tolist(), x=list(confusion.columns), y=list(confusion.rows),
            zmin=0, zmax=1, colorscale=[[0, "#ffffff"], [1, ZERO]], text=hover, hoverinfo="text",
            xgap=1, ygap=1, showscale=False,
        )
    )  # fmt: skip
    x = {"automargin": True, "tickangle": -60, "showgrid": False}
    more = {"margin": {"l": 8, "r": 8, "t": 8, "b": 8}, "xaxis": x, "yaxis": UP_WITHOUT_GRID}
    figure.update_layout(**layout(height=130 + 22 * len(confusion.rows), showlegend=False, **more))
    return figure


def hybrid_chart(curve: RoutingCurve, scale: words.Scale) -> go.Figure:
    """Score over the share of traffic that goes to the large model."""
    shares = (100 * curve.shares).round(1).tolist()
    figure = go.Figure()
    lines = (
        ("knowing both scores (bound)", curve.oracle, MUTED, "dot"),
        ("by the small model's confidence", curve.scores, TUNED, "solid"),
        ("at random", curve.random, MUTED, "dash"),
    )
    for name, values, colour, dash in lines:
        figure.add_trace(
            go.Scatter(
                name=name,
                x=shares,
                y=(scale.unit * values).round(4).tolist(),
                mode="lines",
                line={"color": colour, "width": 2 if dash == "solid" else 1.3, "dash": dash},
                hovertemplate="%{x:.0f} % to the large model: %{y:.1f}<extra></extra>",
            )
        )
    figure.add_trace(
        go.Scatter(
            name="best point on these examples",
            x=[100 * curve.best_share],
            y=[scale.unit * curve.best_score],
            mode="markers",
            marker={"color": TUNED, "size": 11, "symbol": "diamond"},
            hovertemplate="%{x:.0f} %: %{y:.1f}<extra></extra>",
        )
    )
    x = axis("Share of prompts sent to the large model (%)")
    figure.update_layout(**layout(height=340, xaxis=x, yaxis=axis(_score(scale))))
    return figure


def scaling_chart(
    match: ScalingMatch, test: TestSet, points: list[Point], contrast: Contrast, scale: words.Scale
) -> go.Figure:
    """Zero-shot quality over size with its fit, and the tuned model's level."""
    zero = [p for p in points if p.arm.kind == ZERO_SHOT and p.arm.model.quantization == "none"]
    zero = [p for p in zero if math.isfinite(p.arm.params)]
    sizes = sorted(float(p.arm.params) for p in zero)
    grid = np.geomspace(sizes[0], sizes[-1], 60)
    figure = go.Figure()
    if match.fit is not None:
        fitted = scale.unit * test.sign * match.fit.quality(grid)
        figure.add_trace(
            go.Scatter(
                name="fit to zero-shot", x=grid.tolist(), y=fitted.round(4).tolist(), mode="lines",
                line={"color": ZERO, "width": 1.6}, hoverinfo="skip",
            )
        )  # fmt: skip
    tuned = [p for p in points if p.arm is contrast.small]
    for name, chosen, colour, symbol in (
        ("zero-shot", zero, ZERO, "square"),
        (escape(contrast.small.label), tuned, TUNED, "circle"),
    ):
        marker = {"color": colour, "size": 10, "symbol": symbol}
        x = [p.arm.params for p in chosen]
        figure.add_trace(scatter(chosen, x, scale, name=name, mode="markers", marker=marker))
    line = {"color": TUNED, "width": 1.2, "dash": "dot"}
    figure.add_hline(y=scale.unit * test.sign * match.tuned_mean, line=line)
    if match.parameters is not None:
        figure.add_vline(x=match.parameters, line={"color": MUTED, "width": 1, "dash": "dot"})
    ticks: dict[str, Any] = {"tickvals": sizes, "ticktext": [words.count(s) for s in sizes]}
    axes = {
        "xaxis": axis("Parameters", type="log", **ticks),
        "yaxis": axis(score_title(test, scale)),
    }
    figure.update_layout(**layout(height=340, **axes))
    return figure


def parallel_chart(frame: pd.DataFrame, metric: str) -> go.Figure:
    columns = ("params", "r", "train_examples", "memory_bytes", "train_seconds", "latency_seconds")
    known = [c for c in columns if frame[c].notna().sum() > 1 and frame[c].nunique() > 1]
    dimensions = [
        {"label": c, "values": pd.to_numeric(frame[c]).fillna(0.0).tolist()} for c in known
    ]
    scores = frame["score"].fillna(0.0).tolist()
    dimensions.append({"label": metric, "values": scores})
    line = {"color": scores, "colorscale": "Cividis"}
    return go.Figure(go.Parcoords(line=line, dimensions=dimensions))
