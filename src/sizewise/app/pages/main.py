"""What Streamlit runs: the pages, their notice and their style."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import streamlit as st

from sizewise.app.launch import may_enter, same_origin

NOTICE = (
    "<strong>Research, not care.</strong> These models can be wrong and can do harm. "
    "They replace no doctor and no counsellor."
)
TOKEN = "token"
CLOSED = "Open the whole address that `sizewise app` has printed: it ends in a token."
CSS = """
.block-container, .stMainBlockContainer { max-width: 1080px; padding-top: 1.25rem; }
.stBottomBlockContainer { max-width: 1080px; }
.notice { margin: 0 0 .5rem; padding: .5rem .9rem; border-left: 3px solid #D55E00;
  background: rgba(213, 94, 0, .09); border-radius: 4px; font-size: .875rem; }
h1 { font-size: 1.9rem !important; letter-spacing: -.02em; padding-bottom: .25rem !important; }
h2 { font-size: 1.25rem !important; padding-top: 1.5rem !important; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.5; }
.who { font-size: .8rem; opacity: .7; margin: 0 0 .25rem; overflow-wrap: anywhere; }
.panel { border: 1px solid rgba(128, 128, 128, .28); border-radius: 10px; padding: .75rem .95rem; }
.said { background: rgba(0, 114, 178, .12); border-radius: 14px; padding: .6rem .95rem;
  width: fit-content; max-width: min(100%, 46rem); margin: .5rem 0 .25rem auto; }
.writing::after { content: "▍"; opacity: .5; }
.crisis { border-left: 4px solid #D55E00; background: rgba(213, 94, 0, .09); border-radius: 6px;
  padding: .9rem 1.1rem; }
.crisis ul { margin: .6rem 0 0; padding: 0; list-style: none; }
.crisis li { margin: .3rem 0; }
.lead { opacity: .75; max-width: 74ch; margin: 0; }
.verdict { font-size: 1.7rem; font-weight: 650; line-height: 1.2; margin: .2rem 0; }
@media (max-width: 640px) { .st-key-pages { gap: 0; }
  .st-key-pages a > span:has(> [data-testid="stIconMaterial"]) { display: none; }
  .block-container, .stMainBlockContainer { padding: .75rem 1rem 5rem; } }
"""


PAGES = (
    ("results", "Results", ":material/bar_chart:"),
    ("jobs", "Jobs", ":material/monitoring:"),
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


def check_visitor() -> None:
    """Show nothing to who did not bring the token; keep it in the address for a reload."""
    given = st.query_params.get(TOKEN) or st.session_state.get(TOKEN)
    if not same_origin(st.context.headers) or not may_enter(given):
        st.error(CLOSED)
        st.stop()
    st.session_state[TOKEN] = st.query_params[TOKEN] = given


st.set_page_config(page_title="sizewise", page_icon="🟠", layout="wide")
check_visitor()
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
