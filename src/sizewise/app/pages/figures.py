"""The report's figures in the app: names for the width of the window, the colours of the theme."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from sizewise.palette import DARK, INK

PLOT = {"displayModeBar": False, "scrollZoom": False}
NARROW, WIDE = 0, 1  # places in the widths for which a figure has its names
NAMED, FOREST = "named", "forest"


def fitted(figure: go.Figure, width: int = WIDE) -> go.Figure:
    """Draw a figure of the report as its page does: it has its names and headings in ``meta``."""
    meta: Any = figure.layout.meta or {}
    if meta.get("kind") == NAMED:
        chosen = meta["widths"][width]
        figure.update_layout(height=chosen["height"], annotations=chosen["annotations"])
        figure.update_xaxes(**chosen["ticks"])
    if meta.get("kind") == FOREST:
        for y, text in meta["headings"]:
            figure.add_annotation(_beside(y, f"<b>{escape(text)}</b>"))
    if meta.get("kind") == FOREST and width == NARROW:
        for y, text in zip(meta["at"], meta["labels"], strict=True):
            figure.add_annotation({**_beside(y, text), "yshift": 13, "font": {"size": 11}})
        figure.update_layout(height=1.5 * figure.layout.height)
        figure.update_yaxes(showticklabels=False)
    return figure


def _beside(y: float, text: str) -> dict[str, Any]:
    place = {"xref": "paper", "x": 0, "xanchor": "left", "y": y, "align": "left"}
    return {**place, "text": text, "showarrow": False}


def themed(figure: go.Figure) -> go.Figure:
    """Write in ink, as Streamlit's grey is too pale; swap colours on a dark ground."""
    figure.update_layout(font_color=INK)
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(tickfont_color=INK, title_font_color=INK)
    if st.context.theme.type != "dark":
        return figure
    return go.Figure(_recoloured(figure.to_dict()))


def _recoloured(value: Any) -> Any:
    if isinstance(value, str):
        return DARK.get(value, value)
    if isinstance(value, dict):
        return {key: _recoloured(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_recoloured(entry) for entry in value]
    return value


def draw(figure: go.Figure, key: str, **more: Any) -> Any:
    """Draw a figure; one with names for several widths is drawn for phones, too."""
    meta: Any = figure.layout.meta or {}
    if meta.get("kind") not in (NAMED, FOREST):
        return st.plotly_chart(themed(figure), config=PLOT, key=key, **more)
    found: Any = None
    for width, name in ((WIDE, "wide"), (NARROW, "narrow")):
        with st.container(key=f"{name}_{key}"):
            copy = themed(fitted(go.Figure(figure), width))
            event = st.plotly_chart(copy, config=PLOT, key=f"{key}_{name}", **more)
        found = event if found is None or has_points(event) else found
    return found


def has_points(event: Any) -> bool:
    selection = event.get("selection") if isinstance(event, Mapping) else None
    return bool(selection and selection.get("points"))
