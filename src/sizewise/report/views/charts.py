"""Interactive charts (plotly) of one test set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sizewise.palette import LARGE, MUTED, SERIES, TUNED, ZERO
from sizewise.report import words
from sizewise.report.comparison.arms import ZERO_SHOT, TestSet
from sizewise.report.comparison.contrast import Contrast
from sizewise.report.comparison.pairs import Pair
from sizewise.report.comparison.points import COSTS, Curve, Front, LearningCurve, Point, best_points
from sizewise.report.comparison.readings import Calibration
from sizewise.report.comparison.strata import Confusion, Stratum
from sizewise.statistics.routing import RoutingCurve
from sizewise.statistics.scaling import ScalingMatch

MOST_LABELS, MOST_PAIRS = 12, 40
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
UP_WITHOUT_GRID = {"autorange": "reversed", "automargin": True, "showgrid": False}


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


def _axis(title: str, scale: words.Scale | None = None, **more: Any) -> dict[str, Any]:
    percent = " (%)" if scale is not None and scale.percent else ""
    return {"title": {"text": escape(title) + percent}, **more}


def _scatter(
    points: Sequence[Point], x: Iterable[float | None], scale: words.Scale, **more: Any
) -> go.Scatter:
    hover = [f"<b>{escape(p.label)}</b><br>{scale.value(p.score)}" for p in points]
    more = {"hovertext": hover, "hoverinfo": "text", **more}
    return go.Scatter(x=list(x), y=[scale.unit * p.score for p in points], **more)


def _errors(points: Sequence[Point], unit: float, thickness: float) -> dict[str, Any]:
    up = [0.0 if p.high is None else unit * (p.high - p.score) for p in points]
    down = [0.0 if p.low is None else unit * (p.score - p.low) for p in points]
    bars = {"type": "data", "array": up, "arrayminus": down}
    return {**bars, "thickness": thickness, "width": 0}


def quality_chart(
    test: TestSet, points: Sequence[Point], front: Front, scale: words.Scale
) -> go.Figure:
    """Quality against one cost; a base's zero-shot and tuned points connected.

    The ``customdata`` of a marker is the arm's position in the test set.
    """
    known = [p for p in points if p.costs[front.cost] is not None]
    positive = all((p.costs[front.cost] or 0) > 0 for p in known)
    figure = go.Figure(
        [_front_line(known, front, scale.unit), _links(known, front.cost, scale.unit)]
    )
    named = {id(p) for p in best_points(known, test.sign, MOST_LABELS)}
    for tuned, name in ((False, "zero-shot"), (True, "tuned")):
        chosen = [p for p in known if p.tuned is tuned]
        if chosen:
            figure.add_trace(_markers(chosen, named, name, front, scale))
    log = {"type": "log" if positive else "linear", **_log_ticks(known, front.cost, positive)}
    x, y = _axis(COSTS[front.cost], **log), _axis(test.primary, scale)
    figure.update_layout(**layout(xaxis=x, yaxis=y))
    return figure


def _log_ticks(points: Sequence[Point], cost: str, log: bool) -> dict[str, Any]:
    if cost != "params" or not log:
        return {}
    sizes = sorted({float(p.arm.model.params_base) for p in points})
    apart = [s for i, s in enumerate(sizes) if i == 0 or s / sizes[i - 1] > 1.4]
    return {"tickvals": apart, "ticktext": [words.count(s) for s in apart]}


def _markers(
    points: Sequence[Point], named: set[int], name: str, front: Front, scale: words.Scale
) -> go.Scatter:
    tuned = points[0].tuned
    return _scatter(
        points,
        [p.costs[front.cost] for p in points],
        scale,
        name=name,
        mode="markers+text",
        text=[escape(p.label) if id(p) in named else "" for p in points],
        textposition=[_place(p, front) for p in points],
        textfont={"size": 11},
        cliponaxis=False,
        hovertext=[_hover(p, front, scale) for p in points],
        customdata=[p.position for p in points],
        error_y=_errors(points, scale.unit, 1.2),
        marker={
            "color": TUNED if tuned else ZERO,
            "size": 11,
            "symbol": "circle" if tuned else "square",
            "line": {"width": 1.5, "color": "white"},
        },
        meta={
            "short": [escape(p.arm.model.name) if id(p) in named else "" for p in points],
            "directories": [p.arm.first.run.directory.name for p in points],
        },
    )


def _place(point: Point, front: Front) -> str:
    """Right above the point; to its left where it stands at the right edge."""
    return "top left" if (point.costs[front.cost] or 0.0) >= front.largest else "top right"


def _hover(point: Point, front: Front, scale: words.Scale) -> str:
    lines = [f"<b>{escape(point.label)}</b>", scale.value(point.score)]
    if point.low is not None and point.high is not None:
        lines[1] += f" ({scale.value(point.low)} to {scale.value(point.high)})"
    costs = point.costs
    lines.append(f"{words.count(costs['params'])} parameters, {words.size(costs['memory_bytes'])}")
    if costs["latency_seconds"]:
        lines.append(f"{words.seconds(costs['latency_seconds'])} per answer")
    if costs["train_seconds"]:
        lines.append(f"{words.seconds(costs['train_seconds'])} of training")
    if front.holds(point):
        lines.append("on the Pareto front")
    return "<br>".join(lines)


def _links(points: Sequence[Point], cost: str, unit: float) -> go.Scatter:
    by_arm = {id(p.arm): p for p in points}
    x: list[float | None] = []
    y: list[float | None] = []
    for point in points:
        base = by_arm.get(id(point.base))
        if base is not None:
            x += [base.costs[cost], point.costs[cost], None]
            y += [unit * base.score, unit * point.score, None]
    line = {"color": MUTED, "width": 1, "dash": "dot"}
    return go.Scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", showlegend=False)


def _front_line(points: Sequence[Point], front: Front, unit: float) -> go.Scatter:
    on = sorted((p for p in points if front.holds(p)), key=lambda p: p.costs[front.cost] or 0)
    x, y = [p.costs[front.cost] for p in on], [unit * p.score for p in on]
    line = {"color": MUTED, "width": 1.4, "shape": "hv"}
    return go.Scatter(
        name="Pareto front", x=x, y=y, mode="lines", line=line, opacity=0.6, hoverinfo="skip"
    )


def curves_chart(
    curves: Sequence[Curve], x_title: str, test: TestSet, scale: words.Scale, log: bool
) -> go.Figure:
    """Quality over one number, a line per curve."""
    figure = go.Figure()
    for number, curve in enumerate(curves):
        colour = SERIES[number % len(SERIES)]
        dash, symbol = DASHES[number % len(DASHES)], SYMBOLS[number % len(SYMBOLS)]
        figure.add_trace(
            _scatter(
                curve.points,
                curve.x,
                scale,
                name=escape(curve.name),
                mode="lines+markers",
                line={"color": colour, "width": 2, "dash": dash},
                marker={"color": colour, "size": 9, "symbol": symbol},
                error_y=_errors(curve.points, scale.unit, 1),
            )
        )
    ticks = sorted({x for curve in curves for x in curve.x})
    named: dict[str, Any] = {"tickvals": ticks, "ticktext": [f"{tick:,.0f}" for tick in ticks]}
    x, y = _axis(x_title, type="log" if log else "linear", **named), _axis(test.primary, scale)
    figure.update_layout(**layout(height=340, xaxis=x, yaxis=y))
    return figure


def learning_chart(
    learning: Sequence[LearningCurve], test: TestSet, scale: words.Scale
) -> go.Figure:
    """Learning curves with the level of the large zero-shot model and where it is overtaken."""
    figure = curves_chart([c.curve for c in learning], "Training examples", test, scale, log=True)
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
                hovertext=[f"{escape(label)}<br>{scale.value(v)}" for v in values],
                hoverinfo="text",
            )
        )
    height = 110 + (18 * len(colours) + 14) * len(names)
    margin = {"l": 8, "r": 16, "t": 12, "b": 44}
    axes = {"xaxis": _axis("score", scale), "yaxis": UP_WITHOUT_GRID}
    figure.update_layout(
        **layout(height=height, barmode="group", bargap=0.28, margin=margin, **axes)
    )
    return figure


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
    axes = {"xaxis": _axis("Probability of the answer (%)"), "yaxis": _axis("Right (%)")}
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
    x = _axis("Share of prompts sent to the large model (%)")
    figure.update_layout(**layout(height=340, xaxis=x, yaxis=_axis("score", scale)))
    return figure


def scaling_chart(
    match: ScalingMatch, test: TestSet, points: list[Point], contrast: Contrast, scale: words.Scale
) -> go.Figure:
    """Zero-shot quality over size with its fit, and the tuned model's level."""
    zero = [p for p in points if p.arm.kind == ZERO_SHOT and p.arm.model.quantization == "none"]
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
        figure.add_trace(_scatter(chosen, x, scale, name=name, mode="markers", marker=marker))
    line = {"color": TUNED, "width": 1.2, "dash": "dot"}
    figure.add_hline(y=scale.unit * test.sign * match.tuned_mean, line=line)
    if match.parameters is not None:
        figure.add_vline(x=match.parameters, line={"color": MUTED, "width": 1, "dash": "dot"})
    ticks: dict[str, Any] = {"tickvals": sizes, "ticktext": [words.count(s) for s in sizes]}
    axes = {"xaxis": _axis("Parameters", type="log", **ticks), "yaxis": _axis(test.primary, scale)}
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


def forest_chart(pairs: Sequence[Pair], scale: words.Scale) -> go.Figure:
    """Gain of A over B with its interval; filled where Holm's corrected test rejects equality."""
    shown = _some_of_each(pairs, MOST_PAIRS)
    labels, heights, headings = _forest_rows(shown)
    figure = go.Figure()
    for name, colour in (("A better", TUNED), ("B better", ZERO), ("not shown", MUTED)):
        chosen = [(p, y) for p, y in zip(shown, heights, strict=True) if _kind(p) == name]
        figure.add_trace(_forest_trace(chosen, name, colour, scale))
    rows = len(shown) + len(headings)
    ticks = {"tickvals": heights, "ticktext": labels, "range": [-rows + 0.2, 0.8]}
    figure.update_layout(
        **layout(
            height=90 + 25 * rows,
            margin={"l": 8, "r": 16, "t": 12, "b": 44},
            xaxis=_axis("Gain of A over B" + (" (points)" if scale.percent else ""), zeroline=True),
            yaxis={**ticks, "automargin": True, "showgrid": False},
            meta={"kind": "forest", "headings": headings, "labels": labels, "at": heights},
        )
    )
    return figure


def _some_of_each(pairs: Sequence[Pair], most: int) -> list[Pair]:
    """At most ``most`` pairs, as many of each question as fit, in their order."""
    by_question: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_question.setdefault(pair.question, []).append(pair)
    chosen: list[Pair] = []
    for number, group in enumerate(sorted(by_question.values(), key=len)):
        chosen += group[: (most - len(chosen)) // (len(by_question) - number)]
    ids = {id(p) for p in chosen}
    return [p for p in pairs if id(p) in ids]


def _forest_rows(pairs: Sequence[Pair]) -> tuple[list[str], list[float], list[list[Any]]]:
    """Labels and heights of the pairs, and the headings (height, text) between them."""
    labels, heights, headings = [], [], []
    y, question = 0.0, ""
    for pair in pairs:
        if pair.question != question:
            question = pair.question
            headings.append([y, question[:1].upper() + question[1:]])
            y -= 1
        labels.append(f"{escape(pair.a.label)} − {escape(pair.b.label)}")
        heights.append(y)
        y -= 1
    return labels, heights, headings


def _kind(pair: Pair) -> str:
    return "A better" if pair.wins else "B better" if pair.loses else "not shown"


def _forest_trace(
    rows: Sequence[tuple[Pair, float]], name: str, colour: str, scale: words.Scale
) -> go.Scatter:
    unit, pairs = scale.unit, [pair for pair, _ in rows]
    symbol = "circle-open" if name == "not shown" else "circle"
    hover = [
        f"<b>{escape(p.a.label)}</b> − {escape(p.b.label)}<br>{scale.difference(p.gain)} "
        f"({scale.interval(p.low, p.high)})<br>{words.p_value(p.p_corrected)} (Holm)"
        for p in pairs
    ]
    up, down = [unit * (p.high - p.gain) for p in pairs], [unit * (p.gain - p.low) for p in pairs]
    bars = {"type": "data", "array": up, "arrayminus": down, "thickness": 1.6, "width": 0}
    return go.Scatter(
        name=name,
        x=[unit * p.gain for p in pairs],
        y=[y for _, y in rows],
        mode="markers",
        marker={"color": colour, "size": 9, "symbol": symbol},
        error_x={**bars, "color": colour},
        hovertext=hover,
        hoverinfo="text",
    )
