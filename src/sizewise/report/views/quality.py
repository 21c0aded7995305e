"""The picture of the question: quality against one cost, every point with its name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np
import plotly.graph_objects as go

from sizewise import words
from sizewise.palette import MUTED
from sizewise.report.comparison.arms import CLASSICAL, TestSet
from sizewise.report.comparison.points import COSTS, Front, Point, best_points, sizes_apart
from sizewise.report.views.look import (
    MOST_NAMES,
    Shape,
    axis,
    colours_of,
    errors,
    layout,
    name_of,
    scatter,
    score_title,
    shape_of,
    shapes_of,
    short_name,
)
from sizewise.report.views.placement import (
    Box,
    Pixels,
    Place,
    along,
    arrange,
    beside,
    line,
)

# A figure does not know how wide it will be: names are placed for each of these.
WIDTHS = (340, 620, 940)
NARROW = 560
PLOT_HEIGHT, LEGEND_ROW, FONT, MARK = 340, 20, 11, 11
LETTER = 0.6  # mean width of a letter, in heights


def quality_chart(
    test: TestSet, points: Sequence[Point], front: Front, scale: words.Scale
) -> go.Figure:
    """Quality against one cost: colour by base, shape by method, baselines as level lines.

    The ``customdata`` of a marker is the arm's position in the test set. ``layout.meta`` has the
    names for narrower and wider figures than the one of the middle, which is drawn.
    """
    picture = _Picture(test, points, front, scale)
    figure = go.Figure(_traces(picture))
    for point in picture.levels:
        line = {"color": MUTED, "width": 1, "dash": "dot"}
        figure.add_hline(y=scale.unit * point.score, line=line)
    widths = [_for_width(figure, picture, width) for width in WIDTHS]
    kind = "log" if picture.log else "linear"
    x = axis(COSTS[front.cost], type=kind, range=picture.x_range, **widths[1]["ticks"])
    y = axis(score_title(test, scale), range=picture.y_range)
    shown = {name: widths[1][name] for name in ("height", "annotations")}
    meta = {"kind": "named", "widths": widths}
    figure.update_layout(**layout(xaxis=x, yaxis=y, meta=meta, **shown))
    figure.update_layout(legend={"itemclick": False, "itemdoubleclick": False})
    return figure


class _Picture:
    """What is drawn, and where it stands: on a logarithmic axis ``x`` is a logarithm."""

    def __init__(
        self, test: TestSet, points: Sequence[Point], front: Front, scale: words.Scale
    ) -> None:
        self.cost, self.front, self.scale = front.cost, front, scale
        self.known = [p for p in points if p.costs[front.cost] is not None]
        self.levels = [p for p in points if front.cost == "params" and p.arm.kind == CLASSICAL]
        self.named = best_points(self.known, test.sign, MOST_NAMES)
        costs = [p.costs[front.cost] or 0.0 for p in self.known]
        self.log = bool(costs) and min(costs) > 0
        ends = [(p.low, p.score, p.high) for p in (*self.known, *self.levels)]
        self.x_range = _padded([self.x(p) for p in self.known])
        self.y_range = _padded([scale.unit * v for three in ends for v in three if v is not None])

    def x(self, point: Point) -> float:
        cost = point.costs[self.cost] or 0.0
        return math.log10(cost) if self.log and cost else cost

    def y(self, point: Point) -> float:
        return self.scale.unit * point.score

    def at(self, x: float, y: float, inside: Box) -> tuple[float, float]:
        """Where drawn values stand, in pixels."""
        across = (x - self.x_range[0]) / (self.x_range[1] - self.x_range[0])
        up = (y - self.y_range[0]) / (self.y_range[1] - self.y_range[0])
        return across * inside.right, up * inside.top

    def place(self, point: Point, inside: Box) -> tuple[float, float]:
        return self.at(self.x(point), self.y(point), inside)

    @property
    def links(self) -> list[tuple[Point, Point]]:
        """Each base with what was tuned from it."""
        by_arm = {id(p.arm): p for p in self.known}
        pairs = [(by_arm.get(id(p.base)), p) for p in self.known if p.base is not None]
        return [(base, tuned) for base, tuned in pairs if base is not None]

    @property
    def steps(self) -> list[Point]:
        """The points of the front, by cost."""
        return sorted((p for p in self.known if self.front.holds(p)), key=self.x)

    def drawn(self, inside: Box) -> Pixels:
        """Points along all lines, which names should not cross."""
        found = [np.empty((0, 2))]
        for p in self.named:
            if p.low is not None and p.high is not None:
                ends = (self.scale.unit * v for v in (p.low, p.high))
                found.append(line(*(self.at(self.x(p), y, inside) for y in ends)))
        found += [line(self.place(a, inside), self.place(b, inside)) for a, b in self.links]
        steps = [self.place(p, inside) for p in self.steps]
        for (x0, y0), (x1, y1) in pairwise(steps):
            found.append(line((x0, y0), (x1, y0), (x1, y1)))
        for p in self.levels:
            _, y = self.place(p, inside)
            found.append(line((inside.left, y), (inside.right, y)))
        return np.concatenate(found)


def _padded(
    values: Sequence[float],
) -> tuple[float, float]:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    pad = 0.1 * (high - low) or max(abs(high), 1.0) / 10
    return low - pad, high + pad


def _ticks(picture: _Picture, width: int) -> dict[str, Any]:
    if picture.cost != "params" or not picture.log:
        return {}
    low, high = picture.x_range
    # The text of a tick is about 44 pixels wide.
    apart = sizes_apart(picture.known, 10 ** (44 / (width - 80) * (high - low)))
    return {"tickvals": apart, "ticktext": [words.count(s) for s in apart]}


def _traces(picture: _Picture) -> list[go.Scatter]:
    links = [_links(picture)] if picture.links else []
    shapes = shapes_of(picture.known)
    return [
        _front_line(picture),
        *links,
        *(_markers(picture, shape) for shape in shapes),
        *_legend(picture.known),
    ]


def _legend(known: Sequence[Point]) -> list[go.Scatter]:
    """Entries that draw nothing: a colour for each base, then a shape for each method."""
    entries = [(escape(base), colour, "circle") for base, colour in colours_of(known).items()]
    entries += [(shape.name, MUTED, shape.symbol) for shape in shapes_of(known)]
    return [
        go.Scatter(
            x=[None], y=[None], mode="markers", name=name, legendrank=rank,
            marker={"color": colour, "symbol": symbol, "size": MARK},
        )
        for rank, (name, colour, symbol) in enumerate(entries, 1)
    ]  # fmt: skip


def _markers(picture: _Picture, shape: Shape) -> go.Scatter:
    points = [p for p in picture.known if shape_of(p.arm) == shape]
    colours = colours_of(picture.known)
    # The intervals of many points hide the points.
    named = {id(p) for p in picture.named}
    barred = [p if id(p) in named else replace(p, low=None, high=None) for p in points]
    return scatter(
        points,
        [p.costs[picture.cost] for p in points],
        picture.scale,
        name=shape.name,
        mode="markers",
        showlegend=False,
        cliponaxis=False,
        hovertext=[_hover(p, picture.front, picture.scale) for p in points],
        customdata=[p.position for p in points],
        error_y={**errors(barred, picture.scale.unit, 1.2), "color": MUTED},
        marker={
            "color": [colours.get(p.arm.model.name, MUTED) for p in points],
            "size": MARK,
            "symbol": shape.symbol,
            "line": {"width": 1.5, "color": "white"},
        },
        meta={"directories": [p.arm.first.run.directory.name for p in points]},
    )


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


def _links(picture: _Picture) -> go.Scatter:
    x: list[float | None] = []
    y: list[float | None] = []
    for base, tuned in picture.links:
        x += [base.costs[picture.cost], tuned.costs[picture.cost], None]
        y += [picture.y(base), picture.y(tuned), None]
    return go.Scatter(
        name="base to tuned", x=x, y=y, mode="lines", hoverinfo="skip",
        line={"color": MUTED, "width": 1, "dash": "dot"},
    )  # fmt: skip


def _front_line(picture: _Picture) -> go.Scatter:
    x, y = [p.costs[picture.cost] for p in picture.steps], [picture.y(p) for p in picture.steps]
    line = {"color": MUTED, "width": 1.4, "shape": "hv"}
    return go.Scatter(
        name="Pareto front", x=x, y=y, mode="lines", line=line, opacity=0.6, hoverinfo="skip"
    )


def _for_width(figure: go.Figure, picture: _Picture, width: int) -> dict[str, Any]:
    """Height, ticks and names of a figure that is at least ``width`` wide."""
    narrow = width < NARROW
    inside = Box(0.0, 0.0, width - (58.0 if narrow else 80.0), float(PLOT_HEIGHT))
    names = [(p, short_name(p) if narrow else name_of(p.arm)) for p in picture.named]
    levels = [(p, name_of(p.arm)) for p in picture.levels]
    options = [beside(*picture.place(p, inside), *_size(text)) for p, text in names]
    options += [along(picture.place(p, inside)[1], inside, *_size(text)) for p, text in levels]
    marks = [Box.around(*picture.place(p, inside), MARK, MARK) for p in picture.known]
    places = arrange(options, inside, marks, picture.drawn(inside))
    entries = [trace.name for trace in figure.data if trace.showlegend is not False]
    return {
        "width": width,
        "height": PLOT_HEIGHT + 60 + LEGEND_ROW * _legend_rows(entries, inside.right),
        "ticks": _ticks(picture, width),
        "annotations": [
            (_name if at < len(names) else _level_name)(picture, point, text, place, inside)
            for at, ((point, text), place) in enumerate(zip((*names, *levels), places, strict=True))
            if place is not None
        ],
    }


def _legend_rows(entries: Sequence[str], room: float) -> int:
    """Rows of a legend: where one is not enough, all entries get the space of the widest."""
    widths = [LETTER * 12 * len(name) + 48 for name in entries]
    if sum(widths) <= room:
        return 1
    return math.ceil(len(entries) / max(1, int(room // max(widths))))


def _size(text: str) -> tuple[float, float]:
    """Width and height of a name, in pixels; what a browser makes of it differs by its font."""
    return LETTER * FONT * len(text) + 4.0, FONT + 4.0


def _name(picture: _Picture, point: Point, text: str, place: Place, inside: Box) -> dict[str, Any]:
    """A name, held at the side that is next to its point: browsers' letters differ in width."""
    (across, up), (x, y) = place.box.centre, picture.place(point, inside)
    box = place.box
    anchor, tail = (
        ("left", box.left + 2) if box.left >= x else
        ("right", box.right - 2) if box.right <= x else ("center", across)
    )  # fmt: skip
    colour = "rgba(0,0,0,0)" if place.lead is None else MUTED
    return {
        "text": escape(text), "xanchor": anchor, "yanchor": "middle", "font": {"size": FONT},
        "x": picture.x(point), "y": picture.y(point),
        "ax": round(tail - x, 1), "ay": round(y - up, 1), "standoff": 6,
        "showarrow": True, "arrowhead": 0, "arrowwidth": 0.8, "arrowcolor": colour,
    }  # fmt: skip


def _level_name(
    picture: _Picture, point: Point, text: str, place: Place, inside: Box
) -> dict[str, Any]:
    across, up = place.box.centre
    _, level = picture.place(point, inside)
    x, anchor = (
        (1.0, "right") if place.box.right > inside.right - 6 else
        (0.0, "left") if place.box.left < inside.left + 6 else (across / inside.right, "center")
    )  # fmt: skip
    return {
        "text": escape(text), "xanchor": anchor, "yanchor": "middle", "showarrow": False,
        "xref": "paper", "x": round(x, 4),
        "y": picture.y(point), "yshift": round(up - level, 1),
        "font": {"size": FONT, "color": MUTED},
    }  # fmt: skip
