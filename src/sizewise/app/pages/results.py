"""Results of a sweep: the answer and what a reviewer would object to, then what is behind them."""

from __future__ import annotations

from html import escape

import streamlit as st

from sizewise.app.answers import Answer, Written
from sizewise.app.pages import common

STALE = "results_stale"


def page() -> None:
    """Show what the report left at once, then the comparison, which takes some seconds."""
    written = common.written() if not st.session_state.get(STALE) else None
    answers = list(written.answers) if written is not None else _computed(None)
    if not answers:
        common.nothing_here()
        return
    place = 0
    if len(answers) > 1:
        names = [answer.name for answer in answers]
        place = st.selectbox("Test set", range(len(names)), format_func=names.__getitem__)
    _show(answers[place])
    if written is not None and _computed(written) != answers:
        st.session_state[STALE] = True  # another version wrote it, or runs were taken away
        st.rerun()
    from sizewise.app.pages import details

    with common.said_plainly():
        details.show(common.comparison(written), place)


def _computed(written: Written | None) -> list[Answer]:
    from sizewise.app.answers import answer_of

    with common.said_plainly():
        return [answer_of(compared) for compared in common.comparison(written).sets]


def _show(answer: Answer) -> None:
    lines = "".join(f'<p class="answer">{escape(line)}</p>' for line in answer.lines)
    st.html(
        f'<p class="lead">{escape(answer.name)} · {escape(answer.status)}</p>'
        f'<p class="verdict">{escape(answer.headline)}</p>{lines}'
    )
    if answer.objections:
        st.header("What a reviewer would object to", anchor=False)
        items = "".join(f"<li>{escape(line)}</li>" for line in answer.objections)
        st.html(f'<ul class="objections">{items}</ul>')
