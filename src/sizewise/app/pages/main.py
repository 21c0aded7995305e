"""What Streamlit runs: the five pages. Started by ``sizewise app DIR``."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import streamlit as st

from sizewise.app.pages.style import CSS, NOTICE

PAGES = (
    ("results", "Results", ":material/bar_chart:"),
    ("explore", "Explore", ":material/database:"),
    ("chat", "Chat", ":material/forum:"),
    ("rate", "Rate", ":material/thumbs_up_down:"),
    ("evaluate", "Evaluate", ":material/play_circle:"),
)


def drawn_by(name: str) -> Callable[[], None]:
    """Return what draws a page; it is imported (with torch, for some) when it is first opened."""

    def draw() -> None:
        with st.spinner("Loading …"):
            module = importlib.import_module(f"sizewise.app.pages.{name}")
        module.page()

    return draw


st.set_page_config(page_title="sizewise", page_icon="🟠", layout="wide")
st.html(f"<style>{CSS}</style>")
pages = [
    st.Page(drawn_by(name), title=title, url_path=name, icon=icon, default=name == "results")
    for name, title, icon in PAGES
]
# Links of our own: on a phone, Streamlit's would be a sidebar that stays open over the page.
chosen = st.navigation(pages, position="hidden")
with st.container(horizontal=True, gap="small", key="pages"):
    for each in pages:
        st.page_link(each, width="content")
st.html(f'<p class="notice" role="note">{NOTICE}</p>')
chosen.run()
