"""Pictures for a paper (matplotlib): size against quality, and the paired differences."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sizewise import words
from sizewise.palette import GRID, INK, MUTED
from sizewise.report.comparison.arms import CLASSICAL, TestSet
from sizewise.report.comparison.contrast import scale_of
from sizewise.report.comparison.pair import Pair
from sizewise.report.comparison.points import Point, best_points, sizes_apart
from sizewise.report.views.forest import (
    COLOURS,
    LEGEND,
    Row,
    drawn_ends,
    forest_notes,
    forest_rows,
)
from sizewise.report.views.look import (
    MOST_NAMES,
    colours_of,
    name_of,
    score_title,
    shape_of,
    shapes_of,
    short_name,
)
from sizewise.report.views.placement import Box, Pixels, Place, along, arrange, beside, line

STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "sizewise",
    "pdf.fonttype": 42,
    # A layout that is fixed stays so, whatever a matplotlibrc asks for.
    "figure.autolayout": False,
    "figure.constrained_layout.use": False,
}
POINTS_PER_INCH = 72  # of the figures, so that a pixel of their layout is a point
WIDE, COLUMN = 7.2, 3.35  # inches: a page, and a column of a paper in two
MARK = 6.0
GROUND: Any = {"fc": "white", "ec": "none", "pad": 0.6, "alpha": 0.8}  # of names over lines
MOST_PAIRS, MOST_IN_A_COLUMN = 40, 24
MOST_IN_A_LINE, MOST_OF_A_NAME = 46, 26  # letters: of the names of a pair, of each in a column


class Picture(Figure):
    """A figure that shows itself in a notebook, whatever Matplotlib is set up for there."""

    def _repr_svg_(self) -> str:
        return svg_text(self)


def size_versus_quality(
    test: TestSet, points: Sequence[Point], title: str = "", column: bool = False
) -> Figure:
    """Quality over parameters: zero-shot and tuned of a base connected, 95 % intervals.

    ``column``: as wide as a column, with names that leave out what the colour says.
    """
    with mpl.rc_context({**STYLE, "font.size": 7.5 if column else 9}):
        size = (COLUMN, 3.5) if column else (WIDE, 4.8)
        figure = Picture(figsize=size, layout="constrained", dpi=POINTS_PER_INCH)
        axes = figure.add_subplot()
        scale = scale_of(test)
        levels = [point for point in points if point.arm.kind == CLASSICAL]
        known = [point for point in points if point.costs["params"] is not None]
        for level in levels:
            axes.axhline(scale.unit * level.score, color=MUTED, lw=0.9, ls=(0, (1, 2)), zorder=0)
        named = best_points(known, test.sign, MOST_NAMES)
        _points(axes, known, named, scale.unit)
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.margins(x=0.1, y=0.12)
        _frame(axes, "Parameters", score_title(test, scale))
        if not points:
            _nothing(axes)
        if not column:
            title = title or " · ".join([words.spelled(test.dataset), test.size])
            axes.set_title(title, loc="left", fontweight="bold", fontsize=10)
        _legend(figure, known, levels, columns=2 if column else 4)
        _names(figure, axes, named, known, levels, scale.unit, short=column)
        return figure


def _points(axes: Axes, known: Sequence[Point], named: Sequence[Point], unit: float) -> None:
    """Marks with their links; intervals of those that are named, for many hide the points."""
    colours, barred = colours_of(known), {id(point) for point in named}
    for point in known:
        colour = colours[point.arm.model.name]
        x, y = float(point.arm.params), unit * point.score
        if point.low is not None and point.high is not None and id(point) in barred:
            ends = [unit * point.low, unit * point.high]
            axes.plot([x, x], ends, color=colour, lw=1.2, alpha=0.7)
        if point.base is not None:
            start = (point.base.params, unit * point.base.score(point.arm.primary))
            link: Any = {"color": MUTED, "lw": 0.7, "ls": (0, (3, 2)), "zorder": 0}
            axes.plot([start[0], x], [start[1], y], **link)
        marker = shape_of(point.arm).marker
        axes.plot(x, y, marker, color=colour, ms=MARK, mec="white", mew=0.8, zorder=3)


def _legend(figure: Figure, known: Sequence[Point], levels: Sequence[Point], columns: int) -> None:
    """What colours, shapes and lines mean, under the picture."""
    marks: Any = {"ls": "", "ms": MARK}
    entries = [
        Line2D([], [], marker="o", color=colour, label=base, **marks)
        for base, colour in colours_of(known).items()
    ]
    entries += [
        Line2D([], [], marker=shape.marker, color=MUTED, label=shape.name, **marks)
        for shape in shapes_of(known)
    ]
    entries.append(Line2D([], [], color=MUTED, lw=1.2, label="95 % interval"))
    if any(point.base is not None for point in known):
        said = "from a base to its tuned models"
        entries.append(Line2D([], [], color=MUTED, lw=0.7, ls=(0, (3, 2)), label=said))
    if levels:
        said = "baseline without a language model"
        entries.append(Line2D([], [], color=MUTED, lw=0.9, ls=(0, (1, 2)), label=said))
    style: Any = {"frameon": False, "handletextpad": 0.4, "columnspacing": 1.0}
    fontsize = 8 if columns > 2 else 6.5
    figure.legend(
        handles=entries, loc="outside lower left", ncols=columns, fontsize=fontsize, **style
    )


def _names(
    figure: Figure,
    axes: Axes,
    named: Sequence[Point],
    known: Sequence[Point],
    levels: Sequence[Point],
    unit: float,
    short: bool,
) -> None:
    """Write the names where nothing else stands; the layout is fixed from here on."""
    fontsize = 6.5 if short else 7.5
    sizes = [_cut(short_name(p)) if short else name_of(p.arm) for p in named]
    texts = [*sizes, *(name_of(p.arm) for p in levels)]
    boxes = list(_measured(figure, axes, texts, fontsize))
    inside = _fixed(figure, axes, known)
    at = [_place(axes, float(p.arm.params), unit * p.score) for p in named]
    options = [beside(*place, *box) for place, box in zip(at, boxes, strict=False)]
    heights = [_place(axes, 1.0, unit * p.score)[1] for p in levels]
    options += [along(y, inside, *b) for y, b in zip(heights, boxes[len(named) :], strict=True)]
    marks = [_place(axes, float(p.arm.params), unit * p.score) for p in known]
    solid = [Box.around(*mark, MARK + 1, MARK + 1) for mark in marks]
    found = arrange(options, inside, solid, _lines(axes, known, unit))
    anchors = [*at, *(None for _ in levels)]
    for text, place, anchor in zip(texts, found, anchors, strict=True):
        if place is not None:
            _write(axes, text, place, anchor, fontsize)


def _measured(
    figure: Figure, axes: Axes, texts: Sequence[str], fontsize: float
) -> Iterator[tuple[float, float]]:
    """Width and height of each text, in points."""
    canvas: Any = FigureCanvasAgg(figure)
    renderer = canvas.get_renderer()
    for text in texts:
        written = axes.text(0, 0, text, fontsize=fontsize)
        box = written.get_window_extent(renderer)
        written.remove()
        yield box.width + 1.0, box.height + 1.0


def _fixed(figure: Figure, axes: Axes, known: Sequence[Point]) -> Box:
    """Lay the figure out for good, with ticks at the sizes, and return the inside of the axes."""
    figure.draw_without_rendering()
    if known:
        low, high = axes.get_xlim()
        width = axes.get_window_extent().width
        apart = sizes_apart(known, (high / low) ** (34.0 / width))
        axes.set_xticks(apart, [words.count(size) for size in apart])
        axes.set_xlim(low, high)
        axes.minorticks_off()
    axes.set_ylim(axes.get_ylim())
    figure.draw_without_rendering()
    figure.set_layout_engine(None)
    box = axes.get_window_extent()
    return Box(box.x0 + 1, box.y0 + 1, box.x1 - 1, box.y1 - 1)


def _place(axes: Axes, x: float, y: float) -> tuple[float, float]:
    across, up = axes.transData.transform((x, y))
    return float(across), float(up)


def _lines(axes: Axes, known: Sequence[Point], unit: float) -> Pixels:
    """Points along intervals and links, which names should not cross."""
    found = [np.empty((0, 2))]
    for p in known:
        x = float(p.arm.params)
        if p.low is not None and p.high is not None:
            found.append(line(_place(axes, x, unit * p.low), _place(axes, x, unit * p.high)))
        if p.base is not None:
            start = _place(axes, float(p.base.params), unit * p.base.score(p.arm.primary))
            found.append(line(start, _place(axes, x, unit * p.score)))
    return np.concatenate(found)


def _write(
    axes: Axes, text: str, place: Place, anchor: tuple[float, float] | None, fontsize: float
) -> None:
    across, up = place.box.centre
    style: Any = {"fontsize": fontsize, "ha": "center", "va": "center", "zorder": 4, "bbox": GROUND}
    if anchor is None:  # a level, which has no point
        anchor, style = (across, up), {**style, "color": MUTED}
    if place.lead is not None:
        style["arrowprops"] = {"arrowstyle": "-", "lw": 0.5, "color": MUTED, "shrinkB": 3.5}
    offset = (across - anchor[0], up - anchor[1])
    where = tuple(axes.transData.inverted().transform(anchor))
    axes.annotate(text, where, offset, textcoords="offset points", annotation_clip=False, **style)


def paired_differences(test: TestSet, pairs: Sequence[Pair], column: bool = False) -> Figure:
    """Forest plot: gain of A over B with its corrected interval; filled where that is shown.

    ``column``: as wide as a column, with the names over the intervals.
    """
    rows = forest_rows(pairs, MOST_IN_A_COLUMN if column else MOST_PAIRS)
    notes = forest_notes(rows)
    broken = not column and any(len(row.text) > MOST_IN_A_LINE for row in rows)
    each, extra = (0.3, 1.2) if column or broken else (0.24, 1.0)
    height = extra + each * max(len(rows), 2) + 0.24 * len(notes)
    with mpl.rc_context({**STYLE, "font.size": 7.5 if column else 9}):
        size = (COLUMN if column else WIDE, height)
        figure = Picture(figsize=size, layout="constrained", dpi=POINTS_PER_INCH)
        axes = figure.add_subplot()
        axes.axvline(0, color=MUTED, lw=0.8, zorder=1)
        _rows(axes, rows, scale_of(test), column)
        title = f"Gain of A over B in {words.score_name(test.primary)}"
        title += ", points" if scale_of(test).percent else ""
        _frame(axes, textwrap.fill(title, MOST_IN_A_LINE), "")
        axes.grid(visible=False, axis="y")
        if rows:
            axes.set_ylim(-len(rows) + 0.3, 0.8)
        else:
            _nothing(axes)
        _marks(figure, rows, notes, column)
        return figure


def _rows(axes: Axes, rows: Sequence[Row], scale: words.Scale, column: bool) -> None:
    unit = scale.unit
    for row in rows:
        if (pair := row.pair) is None:
            continue
        colour = COLOURS[row.kind]
        axes.plot(drawn_ends(pair, scale), [row.y, row.y], color=colour, lw=1.6)
        face = "white" if row.kind == "not shown" else colour
        axes.plot(unit * pair.gain, row.y, "o", ms=5, mec=colour, mfc=face)
    named = [(row.y, row.text + row.signs, row.pair is None) for row in rows]
    if column:
        axes.set_yticks([])
        for y, text, heading in named:
            weight = "bold" if heading else "normal"
            up = y if heading else y + 0.42
            style: Any = {
                "transform": axes.get_yaxis_transform(), "va": "center", "bbox": GROUND,
                "in_layout": False,
            }  # fmt: skip
            named_short = text if heading else " − ".join(map(_cut, text.split(" − ")))
            axes.text(0.0, up, named_short, fontsize=6.5, fontweight=weight, **style)
        return
    texts = [_in_lines(text) for _, text, _ in named]
    axes.set_yticks([y for y, _, _ in named], texts, linespacing=1.0)
    axes.tick_params(axis="y", length=0, labelsize=7.5)
    for label, (_, _, heading) in zip(axes.get_yticklabels(), named, strict=True):
        label.set_fontweight("bold" if heading else "normal")


def _in_lines(text: str) -> str:
    """Break the names of a long pair into two lines, each short enough to leave half the width."""
    if len(text) <= MOST_IN_A_LINE:
        return text
    first, _, second = text.partition(" − ")
    lines = [first, f"− {second}"] if second else [first]
    return "\n".join(_cut(line, MOST_IN_A_LINE) for line in lines)


def _cut(text: str, most: int = MOST_OF_A_NAME) -> str:
    return textwrap.shorten(text, most, placeholder="…")


def _marks(figure: Figure, rows: Sequence[Row], notes: Sequence[str], column: bool) -> None:
    """What filled and hollow points and the signs mean, under the picture."""
    there = {row.kind for row in rows}
    entries = []
    for kind, said in LEGEND.items():
        if kind in there:
            face = "white" if kind == "not shown" else COLOURS[kind]
            style: Any = {"marker": "o", "ms": 5, "mec": COLOURS[kind], "mfc": face}
            entries.append(Line2D([], [], color=COLOURS[kind], lw=1.6, label=said, **style))
    empty: Any = {"ls": "", "marker": ""}
    width = 62 if column else 130
    lines = [part for note in notes for part in textwrap.wrap(note, width)]
    entries += [Line2D([], [], label=part, **empty) for part in lines]
    if entries:
        figure.legend(
            handles=entries, loc="outside lower left", ncols=1, frameon=False,
            fontsize=6.5 if column else 8, handlelength=1.6,
        )  # fmt: skip


def _nothing(axes: Axes) -> None:
    axes.text(0.5, 0.5, "no finished run to show", transform=axes.transAxes, ha="center")


def _frame(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(True, color=GRID, lw=0.6)
    axes.set_axisbelow(True)


def save(figure: Figure, path: Path) -> Path:
    """Write ``path`` (.png at 200 dpi, .svg or .pdf)."""
    FigureCanvasAgg(figure)
    with mpl.rc_context(STYLE):
        figure.savefig(path, dpi=200, metadata=_undated(path.suffix))
    return path


def svg_text(figure: Figure) -> str:
    """The figure as an SVG document."""
    FigureCanvasAgg(figure)
    text = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(text, format="svg", metadata=_undated(".svg"))
    return text.getvalue()


def _undated(suffix: str) -> dict[str, None]:
    """No date in the file: the same outcomes give the same bytes."""
    return {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix, {})
