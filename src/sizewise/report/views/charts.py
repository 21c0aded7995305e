"""Interactive charts (plotly): quality against size, costs, rank and training examples."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from sizewise.report import words
from sizewise.report.comparison.arms import TestSet
from sizewise.report.comparison.curves import Curve, LearningCurve
from sizewise.report.comparison.points import COSTS, Front, Point

# Okabe and Ito (2008); the page swaps them for their lighter relatives on a dark ground.
ZERO, TUNED, LARGE, MUTED = "#0072B2", "#D55E00", "#009E73", "#667085"
MOST_LABELS = 12


def layout(**more: Any) -> dict[str, Any]:
    """Common layout: no title, no ground of its own, room for the axes."""
    base = {
        "margin": {"l": 56, "r": 24, "t": 12, "b": 48},
        "height": 400,
        "showlegend": True,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "hovermode": "closest",
    }
    return {**base, **more}


def quality_chart(
    test: TestSet, points: Sequence[Point], front: Front, scale: words.Scale
) -> go.Figure:
    """Quality against one cost; a base's zero-shot and tuned points connected."""
    unit = 100.0 if scale.percent else 1.0
    known = [p for p in points if p.costs[front.cost] is not None]
    positive = all((p.costs[front.cost] or 0) > 0 for p in known)
    figure = go.Figure()
    figure.add_trace(_front_line(known, front, unit))
    figure.add_trace(_links(known, front.cost, unit))
    for tuned, name in ((False, "zero-shot"), (True, "tuned")):
        chosen = [p for p in known if p.tuned is tuned]
        if chosen:
            figure.add_trace(_markers(chosen, _named(known, test.sign), name, front, scale))
    figure.update_layout(
        **layout(
            xaxis={
                "type": "log" if positive else "linear",
                "title": {"text": COSTS[front.cost]},
                **_log_ticks(known, front.cost, positive),
            },
            yaxis={"title": {"text": escape(test.primary) + (" (%)" if scale.percent else "")}},
        )
    )
    return figure


def _log_ticks(points: Sequence[Point], cost: str, log: bool) -> dict[str, Any]:
    if cost != "params" or not log:
        return {}
    sizes = sorted({float(p.arm.model.params_base) for p in points})
    apart = [s for i, s in enumerate(sizes) if i == 0 or s / sizes[i - 1] > 1.4]
    return {"tickvals": apart, "ticktext": [words.count(s) for s in apart]}


def _named(points: Sequence[Point], sign: float) -> set[int]:
    """The best point of every base, tuned and not, is named; the others tell on hovering."""
    best: dict[tuple[str, bool], Point] = {}
    for point in points:
        key = (point.arm.model.name, point.tuned)
        if key not in best or sign * point.score > sign * best[key].score:
            best[key] = point
    return {id(p) for p in list(best.values())[:MOST_LABELS]}


def _markers(
    points: Sequence[Point], named: set[int], name: str, front: Front, scale: words.Scale
) -> go.Scatter:
    unit = 100.0 if scale.percent else 1.0
    colour = TUNED if points[0].tuned else ZERO
    up = [unit * ((p.high if p.high is not None else p.score) - p.score) for p in points]
    down = [unit * (p.score - (p.low if p.low is not None else p.score)) for p in points]
    return go.Scatter(
        name=name,
        x=[p.costs[front.cost] for p in points],
        y=[unit * p.score for p in points],
        mode="markers+text",
        text=[escape(p.label) if id(p) in named else "" for p in points],
        textposition=[_place(p, front) for p in points],
        textfont={"size": 11},
        cliponaxis=False,
        hovertext=[_hover(p, front, scale) for p in points],
        hoverinfo="text",
        error_y={"type": "data", "array": up, "arrayminus": down, "thickness": 1.2, "width": 0},
        marker={
            "color": colour,
            "size": 11,
            "symbol": "circle" if points[0].tuned else "square",
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
    return go.Scatter(
        name="Pareto front",
        x=[p.costs[front.cost] for p in on],
        y=[unit * p.score for p in on],
        mode="lines",
        line={"color": MUTED, "width": 1.4, "shape": "hv"},
        opacity=0.6,
        hoverinfo="skip",
    )


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
