"""The browser of single examples within the page of results."""

from __future__ import annotations

import streamlit as st

from sizewise.app.pages import common
from sizewise.app.views import KINDS, Row, example_rows, select
from sizewise.report.comparison.arms import Candidate, TestSet


def show_answers(test: TestSet, candidate: Candidate, key: str) -> None:
    """Show one example at a time, with filters and steps."""
    with common.said_plainly():
        rows = example_rows(test, candidate)
    if not rows:
        st.caption("The answers of this model are not here.")
        return
    compares = any(row.base is not None for row in rows)
    left, middle = st.columns(2)
    text = left.text_input("Search in prompts and answers", key=f"search{key}")
    kind = KINDS[0]
    if compares:
        kind = middle.selectbox("Show", KINDS, key=f"kind{key}")
    found = select(rows, test, kind, text)
    if not found:
        st.caption("No example fits.")
        return
    _one(test, candidate, found, key)


def _one(test: TestSet, candidate: Candidate, found: list[Row], key: str) -> None:
    place = f"example{key}"
    # Filters may have left fewer examples than the one that was shown.
    st.session_state[place] = min(st.session_state.get(place, 1), len(found))
    left, _ = st.columns([1, 3])
    number = left.number_input(f"Example (of {len(found):,})", 1, len(found), key=place)
    row = found[int(number) - 1]
    st.html(common.panel("Prompt", row.own.prompt))
    texts = [("Reference", row.own.reference)]
    if row.base is not None:
        texts.append((f"Base{_score(row.base.scores, test)}", row.base.text))
    texts.append((f"{candidate.label}{_score(row.own.scores, test)}", row.own.text))
    for column, (who, text) in zip(st.columns(len(texts)), texts, strict=True):
        column.html(common.panel(who, text))


def _score(scores: object, test: TestSet) -> str:
    value = scores.get(test.primary) if isinstance(scores, dict) else None
    return "" if value is None else f" · {value:.3g}"
