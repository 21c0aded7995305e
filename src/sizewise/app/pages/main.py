"""What Streamlit runs: the five pages. Started by ``sizewise app DIR``."""

from __future__ import annotations

import streamlit as st

from sizewise.app.pages import chat, evaluate, explore, rate, results
from sizewise.app.pages.common import CSS, NOTICE

st.set_page_config(page_title="sizewise", page_icon="🟠", layout="wide")
st.html(f"<style>{CSS}</style>")
PAGES = (
    (results.page, "Results", "results", ":material/bar_chart:"),
    (explore.page, "Explore", "explore", ":material/database:"),
    (chat.page, "Chat", "chat", ":material/forum:"),
    (rate.page, "Rate", "rate", ":material/thumbs_up_down:"),
    (evaluate.page, "Evaluate", "evaluate", ":material/play_circle:"),
)
chosen = st.navigation(
    [
        st.Page(page, title=title, url_path=path, icon=icon, default=path == "results")
        for page, title, path, icon in PAGES
    ],
    position="top",
)
st.html(f'<p class="notice" role="note">{NOTICE}</p>')
chosen.run()
