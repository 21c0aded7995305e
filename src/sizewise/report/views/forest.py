"""The paired differences as a forest plot: which pairs, in which order, how each is marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go

from sizewise import words
from sizewise.palette import MUTED, TUNED, ZERO
from sizewise.report.comparison.pair import Pair
from sizewise.report.views.look import axis, layout, name_of

MOST_PAIRS = 40
COLOURS = {"A is better": TUNED, "B is better": ZERO, "not shown": MUTED}
# Signs behind names: of pairs whose interval and test do not say the same, and of the primary one.
WIDE_BUT_OPEN, FOUND_BUT_OPEN, PRIMARY = "*", "†", "‡"
NOTES = {
    WIDE_BUT_OPEN: (
        "the interval is on one side of 0, but the test, corrected for all pairs, does not reject "
        "(or the gain is too small to be printed): not shown"
    ),
    FOUND_BUT_OPEN: "the test rejects, but the interval includes 0: not shown",
    PRIMARY: "named in advance by validation, and tested before all others",
}


@dataclass(frozen=True)
class Row:
    """A pair in its place, or the heading above those of one question; ``y`` falls from 0."""

    y: float
    text: str
    pair: Pair | None = None

    @property
    def kind(self) -> str:
        """What is shown: one of ``COLOURS``."""
        pair = self.pair
        if pair is None:
            return ""
        return "A is better" if pair.wins else "B is better" if pair.loses else "not shown"

    @property
    def signs(self) -> str:
        """The marks of a pair, each one of ``NOTES``."""
        pair = self.pair
        if pair is None:
            return ""
        return self._doubt(pair) + (PRIMARY if pair.primary else "")

    def _doubt(self, pair: Pair) -> str:
        """The mark of a pair that is not shown although interval or test alone would say so."""
        if self.kind != "not shown":
            return ""
        if pair.low > 0 or pair.high < 0:
            return WIDE_BUT_OPEN
        return FOUND_BUT_OPEN if pair.found else ""


def forest_rows(pairs: Sequence[Pair], most: int = MOST_PAIRS) -> list[Row]:
    """Rows from top to bottom: questions in their order, in each the largest gain first."""
    rows: list[Row] = []
    for question, group in _some_of_each(pairs, most).items():
        rows.append(Row(-float(len(rows)), question[:1].upper() + question[1:]))
        for pair in sorted(group, key=lambda p: -p.gain):
            rows.append(Row(-float(len(rows)), f"{name_of(pair.a)} − {name_of(pair.b)}", pair))
    return rows


def _some_of_each(pairs: Sequence[Pair], most: int) -> dict[str, list[Pair]]:
    """At most ``most`` pairs, as many of each question as fit; the first of those are kept."""
    by_question: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_question.setdefault(pair.question, []).append(pair)
    chosen: dict[str, list[Pair]] = {}
    left = most
    for number, (question, group) in enumerate(sorted(by_question.items(), key=_number)):
        chosen[question] = group[: left // (len(by_question) - number)]
        left -= len(chosen[question])
    return {question: chosen[question] for question in by_question if chosen[question]}


def _number(entry: tuple[str, list[Pair]]) -> int:
    return len(entry[1])


def drawn_ends(pair: Pair, scale: words.Scale) -> tuple[float, float]:
    """Return the ends of a pair's interval as they are drawn: shares differ by at most 1."""
    low, high = scale.cut(pair.low, pair.high)
    return scale.unit * low, scale.unit * high


def forest_notes(rows: Sequence[Row]) -> list[str]:
    """What the signs of these rows mean."""
    there = {sign for row in rows for sign in row.signs}
    return [f"{sign} {note}." for sign, note in NOTES.items() if sign in there]


def forest_chart(pairs: Sequence[Pair], scale: words.Scale) -> go.Figure:
    """Gain of A over B with its corrected interval; filled where a difference is shown."""
    rows = forest_rows(pairs)
    shown = [row for row in rows if row.pair is not None]
    figure = go.Figure()
    for kind in COLOURS:
        figure.add_trace(_trace([row for row in shown if row.kind == kind], kind, scale))
    labels = [escape(row.text) + row.signs for row in shown]
    heights = [row.y for row in shown]
    headings = [[row.y, row.text] for row in rows if row.pair is None]
    ticks = {"tickvals": heights, "ticktext": labels, "range": [-len(rows) + 0.2, 0.8]}
    figure.update_layout(
        **layout(
            height=90 + 25 * len(rows),
            margin={"l": 8, "r": 16, "t": 12, "b": 44},
            xaxis=axis("Gain of A over B" + (" (points)" if scale.percent else ""), zeroline=True),
            yaxis={**ticks, "automargin": True, "showgrid": False},
            meta={"kind": "forest", "headings": headings, "labels": labels, "at": heights},
        )
    )
    return figure


LEGEND = {
    "A is better": "filled: A is shown to be better",
    "B is better": "filled: B is shown to be better",
    "not shown": "hollow: no difference is shown",
}


def _trace(rows: Sequence[Row], kind: str, scale: words.Scale) -> go.Scatter:
    unit, pairs = scale.unit, [row.pair for row in rows if row.pair is not None]
    colour = COLOURS[kind]
    symbol = "circle-open" if kind == "not shown" else "circle"
    ends = [drawn_ends(p, scale) for p in pairs]
    up = [high - unit * p.gain for p, (_, high) in zip(pairs, ends, strict=True)]
    down = [unit * p.gain - low for p, (low, _) in zip(pairs, ends, strict=True)]
    bars: dict[str, Any] = {"type": "data", "array": up, "arrayminus": down}
    return go.Scatter(
        name=LEGEND[kind],
        x=[unit * p.gain for p in pairs],
        y=[row.y for row in rows],
        mode="markers",
        marker={"color": colour, "size": 9, "symbol": symbol},
        error_x={**bars, "thickness": 1.6, "width": 0, "color": colour},
        hovertext=[_hover(row, scale) for row in rows],
        hoverinfo="text",
    )


def _hover(row: Row, scale: words.Scale) -> str:
    p = row.pair
    if p is None:
        return ""
    return (
        f"<b>{escape(p.a.label)}</b> − {escape(p.b.label)}<br>{scale.difference(p.gain)} "
        f"({scale.interval(p.low, p.high)}, {words.level(p.level)})<br>"
        f"{words.p_value(p.p_corrected, p.at_floor)}, corrected"
        + "".join(f"<br>{escape(NOTES[sign])}" for sign in row.signs)
    )
