"""Interactive chart (plotly) of the paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from sizewise.report import words
from sizewise.report.comparison.pairs import Pair
from sizewise.report.views.charts import MUTED, TUNED, ZERO, layout

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
