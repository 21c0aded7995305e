"""Distributions: of token lengths over a data set, and of a score over the test examples."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go

from sizewise import palette
from sizewise.data.explore import Exploration
from sizewise.report.views.look import layout
from sizewise.statistics.arrays import FloatArray


def length_chart(found: Exploration, part: str) -> go.Figure:
    """Distribution of the tokens of prompts or answers (``part``), one line per split, in %."""
    figure = go.Figure()
    for split, lengths in found.lengths.items():
        histogram = getattr(lengths, f"{part}_histogram")
        total = sum(histogram.counts) or 1
        x: list[float] = []
        y: list[float] = []
        for low, high, count in zip(
            histogram.edges[:-1], histogram.edges[1:], histogram.counts, strict=True
        ):
            x += [low, high]
            y += [100 * count / total] * 2
        line = {"color": palette.SPLITS[split], "width": 2}
        figure.add_trace(go.Scatter(x=x, y=y, mode="lines", name=split, line=line))
    figure.update_layout(
        height=280,
        margin={"l": 50, "r": 12, "t": 8, "b": 44},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        xaxis={"title": {"text": f"tokens of the {part}"}, "rangemode": "tozero"},
        yaxis={"title": {"text": "examples (%)"}, "rangemode": "tozero"},
    )
    return figure


def histogram_chart(values: Mapping[str, FloatArray], name: str, bins: int = 30) -> go.Figure:
    """Shares of examples by value, one colour per label, in bins that all share.

    Scores that are only 0 or 1 get one bar each.
    """
    figure = go.Figure()
    filled = {label: v for label, v in values.items() if v.size}
    # Bins are counted here: the browser would choose other ones for every model.
    edges, ticks = _edges(filled, bins)
    for place, (label, array) in enumerate(filled.items()):
        widths = np.diff(edges) / len(filled)
        shift = (place - (len(filled) - 1) / 2) * widths
        figure.add_trace(
            go.Bar(
                x=((edges[:-1] + edges[1:]) / 2 + shift).tolist(),
                y=(100 * np.histogram(array, edges)[0] / array.size).tolist(),
                width=(0.92 * widths).tolist(),
                name=escape(label),
                marker={"color": palette.SERIES[place % len(palette.SERIES)]},
                hovertemplate="%{y:.1f} %<extra></extra>",
            )
        )
    figure.update_layout(
        **layout(height=320),
        barmode="overlay",
        xaxis={"title": {"text": escape(name)}, **ticks},
        yaxis={"title": {"text": "examples (%)"}},
    )
    return figure


def _edges(values: Mapping[str, FloatArray], bins: int) -> tuple[FloatArray, dict[str, Any]]:
    every = np.concatenate([np.empty(0), *values.values()])
    if np.isin(every, (0.0, 1.0)).all():
        return np.array([-0.5, 0.5, 1.5]), {"tickvals": [0, 1], "range": [-0.6, 1.6]}
    return np.histogram_bin_edges(every, bins=bins), {}
