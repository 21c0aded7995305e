"""Interactive charts (plotly) of the details: paired differences, strata, routing, scaling."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sizewise.report import words
from sizewise.report.comparison.arms import ZERO_SHOT, TestSet
from sizewise.report.comparison.pairs import Pair
from sizewise.report.comparison.points import Point
from sizewise.report.comparison.strata import Confusion, Stratum
from sizewise.report.comparison.verdict import Contrast
from sizewise.report.views.charts import LARGE, MUTED, TUNED, ZERO, layout
from sizewise.statistics.routing import RoutingCurve
from sizewise.statistics.scaling import ScalingMatch


def strata_chart(stratum: Stratum, contrast: Contrast, scale: words.Scale) -> go.Figure:
    """Grouped bars: the score of each model of the contrast at every level."""
    unit = 100.0 if scale.percent else 1.0
    names = [f"{escape(level.value)} (n={level.examples})" for level in stratum.levels]
    colours = {contrast.small.label: TUNED}
    if contrast.base is not None:
        colours[contrast.base.label] = ZERO
    if contrast.large is not None:
        colours[contrast.large.label] = LARGE
    figure = go.Figure()
    for label, colour in colours.items():
        values = [level.means.get(label) for level in stratum.levels]
        figure.add_trace(
            go.Bar(
                name=escape(label),
                y=names,
                x=[None if v is None else unit * v for v in values],
                orientation="h",
                marker={"color": colour, "line": {"width": 0}},
                hovertext=[f"{escape(label)}<br>{scale.value(v)}" for v in values],
                hoverinfo="text",
            )
        )
    figure.update_layout(
        **layout(
            height=110 + (18 * len(colours) + 14) * len(names),
            barmode="group",
            bargap=0.28,
            margin={"l": 8, "r": 16, "t": 12, "b": 44},
            xaxis={"title": {"text": "score" + (" (%)" if scale.percent else "")}},
            yaxis={"autorange": "reversed", "automargin": True, "showgrid": False},
        )
    )
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
            z=shares.round(4).tolist(),
            x=list(confusion.columns),
            y=list(confusion.rows),
            zmin=0,
            zmax=1,
            colorscale=[[0, "#ffffff"], [1, ZERO]],
            text=hover,
            hoverinfo="text",
            xgap=1,
            ygap=1,
            showscale=False,
        )
    )
    figure.update_layout(
        **layout(
            height=130 + 22 * len(confusion.rows),
            showlegend=False,
            margin={"l": 8, "r": 8, "t": 8, "b": 8},
            xaxis={"automargin": True, "tickangle": -60, "showgrid": False},
            yaxis={"autorange": "reversed", "automargin": True, "showgrid": False},
        )
    )
    return figure


def hybrid_chart(curve: RoutingCurve, contrast: Contrast, scale: words.Scale) -> go.Figure:
    """Score over the share of traffic that goes to the large model."""
    unit = 100.0 if scale.percent else 1.0
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
                y=(unit * values).round(4).tolist(),
                mode="lines",
                line={"color": colour, "width": 2 if dash == "solid" else 1.3, "dash": dash},
                hovertemplate="%{x:.0f} % to the large model: %{y:.1f}<extra></extra>",
            )
        )
    figure.add_trace(
        go.Scatter(
            name="best point on these examples",
            x=[100 * curve.best_share],
            y=[unit * curve.best_score],
            mode="markers",
            marker={"color": TUNED, "size": 11, "symbol": "diamond"},
            hovertemplate="%{x:.0f} %: %{y:.1f}<extra></extra>",
        )
    )
    figure.update_layout(
        **layout(
            height=340,
            xaxis={"title": {"text": "Share of prompts sent to the large model (%)"}},
            yaxis={"title": {"text": "score" + (" (%)" if scale.percent else "")}},
        )
    )
    return figure


def scaling_chart(
    match: ScalingMatch, test: TestSet, points: list[Point], contrast: Contrast, scale: words.Scale
) -> go.Figure:
    """Zero-shot quality over size with its fit, and the tuned model's level."""
    unit = 100.0 if scale.percent else 1.0
    whole = [p for p in points if p.arm.model.quantization == "none"]
    zero = [p for p in whole if p.arm.kind == ZERO_SHOT]
    sizes = sorted(float(p.arm.params) for p in zero)
    grid = np.geomspace(sizes[0], sizes[-1], 60)
    figure = go.Figure()
    if match.fit is not None:
        fitted = unit * test.sign * match.fit.quality(grid)
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
        figure.add_trace(
            go.Scatter(
                name=name,
                x=[p.arm.params for p in chosen],
                y=[unit * p.score for p in chosen],
                mode="markers",
                marker={"color": colour, "size": 10, "symbol": symbol},
                hovertext=[f"{escape(p.label)}<br>{scale.value(p.score)}" for p in chosen],
                hoverinfo="text",
            )
        )
    line = {"color": TUNED, "width": 1.2, "dash": "dot"}
    figure.add_hline(y=unit * test.sign * match.tuned_mean, line=line)
    if match.parameters is not None:
        figure.add_vline(x=match.parameters, line={"color": MUTED, "width": 1, "dash": "dot"})
    figure.update_layout(
        **layout(
            height=340,
            xaxis={
                "type": "log",
                "title": {"text": "Parameters"},
                "tickvals": sizes,
                "ticktext": [words.count(s) for s in sizes],
            },
            yaxis={"title": {"text": escape(test.primary) + (" (%)" if scale.percent else "")}},
        )
    )
    return figure


def parallel_chart(frame: pd.DataFrame, metric: str) -> go.Figure:
    """Parallel coordinates of all configurations, coloured by their score."""
    columns = ("params", "r", "train_examples", "memory_bytes", "train_seconds", "latency_seconds")
    known = [c for c in columns if frame[c].notna().sum() > 1 and frame[c].nunique() > 1]
    dimensions = [
        {"label": c, "values": pd.to_numeric(frame[c]).fillna(0.0).tolist()} for c in known
    ]
    dimensions.append({"label": metric, "values": frame["score"].fillna(0.0).tolist()})
    line = {"color": frame["score"].fillna(0.0).tolist(), "colorscale": "Cividis"}
    return go.Figure(go.Parcoords(line=line, dimensions=dimensions))


MOST_PAIRS = 40


def forest_chart(pairs: Sequence[Pair], scale: words.Scale) -> go.Figure:
    """Gain of A over B with its interval; filled where Holm's corrected test rejects equality."""
    unit = 100.0 if scale.percent else 1.0
    shown = some_of_each(pairs, MOST_PAIRS)
    labels, positions, headings = _forest_rows(shown)
    figure = go.Figure()
    kinds = (("A better", TUNED), ("B better", ZERO), ("not shown", MUTED))
    for name, colour in kinds:
        chosen = [i for i, p in enumerate(shown) if _kind(p) == name]
        figure.add_trace(_forest_trace(shown, chosen, positions, name, colour, scale))
    rows = len(shown) + len(headings)
    figure.update_layout(
        **layout(
            height=90 + 25 * rows,
            margin={"l": 8, "r": 16, "t": 12, "b": 44},
            xaxis={
                "title": {"text": "Gain of A over B" + (" (points)" if unit > 1 else "")},
                "zeroline": True,
            },
            yaxis={
                "tickvals": positions,
                "ticktext": labels,
                "range": [-rows + 0.2, 0.8],
                "automargin": True,
                "showgrid": False,
            },
            meta={"kind": "forest", "headings": headings, "labels": labels, "at": positions},
        )
    )
    return figure


def some_of_each(pairs: Sequence[Pair], most: int) -> list[Pair]:
    """At most ``most`` pairs, as many of each question as fit, in their order."""
    questions = list(dict.fromkeys(p.question for p in pairs))
    left = {q: [p for p in pairs if p.question == q] for q in questions}
    room = most
    kept: list[Pair] = []
    for number, question in enumerate(sorted(questions, key=lambda q: len(left[q]))):
        share = left[question][: room // (len(questions) - number)]
        room -= len(share)
        kept += share
    chosen = {id(p) for p in kept}
    return [p for p in pairs if id(p) in chosen]


def _forest_rows(pairs: Sequence[Pair]) -> tuple[list[str], list[float], list[list[Any]]]:
    """Labels and heights of the pairs, and the headings (height, text) between them."""
    labels, positions, headings = [], [], []
    y, question = 0.0, ""
    for pair in pairs:
        if pair.question != question:
            question = pair.question
            headings.append([y, question[:1].upper() + question[1:]])
            y -= 1
        labels.append(f"{escape(pair.a.label)} − {escape(pair.b.label)}")
        positions.append(y)
        y -= 1
    return labels, positions, headings


def _kind(pair: Pair) -> str:
    return "A better" if pair.wins else "B better" if pair.loses else "not shown"


def _forest_trace(
    pairs: Sequence[Pair],
    chosen: Sequence[int],
    positions: Sequence[float],
    name: str,
    colour: str,
    scale: words.Scale,
) -> go.Scatter:
    unit = 100.0 if scale.percent else 1.0
    some = [pairs[i] for i in chosen]
    symbol = "circle-open" if name == "not shown" else "circle"
    return go.Scatter(
        name=name,
        x=[unit * p.gain for p in some],
        y=[positions[i] for i in chosen],
        mode="markers",
        marker={"color": colour, "size": 9, "symbol": symbol},
        error_x={
            "type": "data",
            "array": [unit * (p.high - p.gain) for p in some],
            "arrayminus": [unit * (p.gain - p.low) for p in some],
            "thickness": 1.6,
            "width": 0,
            "color": colour,
        },
        hovertext=[
            f"<b>{escape(p.a.label)}</b> − {escape(p.b.label)}<br>{scale.difference(p.gain)} "
            f"({scale.interval(p.low, p.high)})<br>{words.p_value(p.p_corrected)} (Holm)"
            for p in some
        ],
        hoverinfo="text",
    )
