"""Pictures for a paper (matplotlib): size against quality, and the paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from sizewise.palette import GRID, INK, MUTED, TUNED, ZERO
from sizewise.report import words
from sizewise.report.comparison.arms import TestSet
from sizewise.report.comparison.contrast import scale_of
from sizewise.report.comparison.pairs import Pair
from sizewise.report.comparison.points import Point, best_points

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
}
MOST_LABELS = 14


def size_versus_quality(test: TestSet, points: Sequence[Point], title: str = "") -> Figure:
    """Quality over parameters: zero-shot and tuned of a base connected, 95 % intervals."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.add_subplot()
        scale = scale_of(test)
        for point in points:
            _point(axes, point, scale.unit)
        for point in best_points(points, test.sign, MOST_LABELS):
            where = (float(point.arm.params), scale.unit * point.score)
            more: Any = {"textcoords": "offset points", "fontsize": 7.5, "va": "center"}
            axes.annotate(point.label, where, (7, 0), **more)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: words.count(v)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(x=0.12, y=0.12)
        _frame(axes, "Parameters", test.primary + (" (%)" if scale.percent else ""))
        if not points:
            _nothing(axes)
        _legend(axes)
        title = title or (f"{test.dataset} ({test.size})" if test.left_out else test.dataset)
        axes.set_title(title, loc="left", fontweight="bold")
        return figure


def paired_differences(test: TestSet, pairs: Sequence[Pair], most: int = 30) -> Figure:
    """Forest plot: gain of A over B with its 95 % interval; filled where Holm's test rejects."""
    with mpl.rc_context(STYLE):
        shown = list(pairs)[:most]
        figure = Figure(figsize=(7.2, 1.2 + 0.3 * max(len(shown), 1)), layout="constrained")
        axes = figure.add_subplot()
        unit = scale_of(test).unit
        for row, pair in enumerate(reversed(shown)):
            colour = TUNED if pair.wins else ZERO if pair.loses else MUTED
            axes.plot([unit * pair.low, unit * pair.high], [row, row], color=colour, lw=1.6)
            face = colour if pair.found else "white"
            axes.plot(unit * pair.gain, row, "o", ms=5, mec=colour, mfc=face)
        axes.axvline(0, color=MUTED, lw=0.8)
        axes.set_yticks(range(len(shown)), [f"{p.a.label} − {p.b.label}" for p in reversed(shown)])
        axes.tick_params(axis="y", length=0, labelsize=7.5)
        _frame(axes, f"Gain in {test.primary}" + (" (points)" if unit > 1 else ""), "")
        if not shown:
            _nothing(axes)
        return figure


def _nothing(axes: Axes) -> None:
    axes.text(0.5, 0.5, "no finished run to show", transform=axes.transAxes, ha="center")


def _point(axes: Axes, point: Point, unit: float) -> None:
    colour = TUNED if point.tuned else ZERO
    x, y = float(point.arm.params), unit * point.score
    if point.low is not None and point.high is not None:
        axes.plot([x, x], [unit * point.low, unit * point.high], color=colour, lw=1.2, alpha=0.7)
    if point.base is not None:
        start = unit * point.base.score(point.arm.primary)
        axes.plot([point.base.params, x], [start, y], color=MUTED, lw=0.7, ls=(0, (3, 2)), zorder=0)
    marker = "o" if point.tuned else "s"
    axes.plot(x, y, marker, color=colour, ms=6, mec="white", mew=0.8, zorder=3)


def _frame(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(True, color=GRID, lw=0.6)
    axes.set_axisbelow(True)


def _legend(axes: Axes) -> None:
    axes.plot([], [], "s", color=ZERO, label="zero-shot")
    axes.plot([], [], "o", color=TUNED, label="tuned")
    axes.plot([], [], color=MUTED, lw=1.2, label="95 % interval")
    axes.legend(frameon=False, fontsize=8, loc="best")


def save(figure: Figure, path: Path) -> Path:
    """Write ``path`` (.png at 200 dpi or .svg)."""
    FigureCanvasAgg(figure)
    # No date in the file: the same outcomes give the same bytes.
    metadata = {"Date": None} if path.suffix == ".svg" else {}
    with mpl.rc_context(STYLE):
        figure.savefig(path, dpi=200, metadata=metadata)
    return path
