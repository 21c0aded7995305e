"""What Streamlit runs: the pages, their notice and their style."""

from __future__ import annotations

import importlib

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
[data-testid="stBottomBlockContainer"] { max-width: 1080px; }
.notice { margin: 0 0 .5rem; padding: .5rem .9rem; border-left: 3px solid #D55E00;
  background: rgba(213, 94, 0, .09); border-radius: 4px; font-size: .875rem; }
h1 { font-size: 1.9rem !important; letter-spacing: -.02em; padding-bottom: .25rem !important; }
h3 { font-size: 1.05rem !important; }
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
.answer { max-width: 74ch; margin: .25rem 0; }
.objections { margin: 0; padding: .6rem 1rem .6rem 2rem; border-left: 3px solid #D55E00;
  background: rgba(213, 94, 0, .06); border-radius: 4px; font-size: .92rem;
  overflow-wrap: anywhere; }
.objections li { margin: .25rem 0; }
/* Streamlit writes in white on the primary colour, which is too pale for that in the dark. */
[data-testid="stBaseButton-primary"]:enabled { color: light-dark(#ffffff, #0e1117); }
[data-testid="stMultiSelectTagsContainer"] [role="group"] :is(span, button, svg) {
  color: light-dark(#ffffff, #0e1117) !important; }
.st-key-pages [aria-checked="true"]:hover {
  background-color: color-mix(in srgb, currentColor 10%, transparent) !important; }
[data-testid="stCaptionContainer"] { opacity: .8 !important; }
[class*="st-key-narrow_"] { display: none; }
@media (max-width: 640px) { [class*="st-key-narrow_"] { display: flex; }
  [class*="st-key-wide_"] { display: none; } }
@media (max-width: 640px) {
  .st-key-pages button *:has(> [data-testid="stIconMaterial"]):not(:has(p)),
  .st-key-pages [data-testid="stIconMaterial"] { display: none; }
  .block-container, .stMainBlockContainer { padding: .75rem 1rem 5rem; } }
"""


PAGES = {
    "results": ":material/bar_chart: Results",
    "jobs": ":material/monitoring: Jobs",
    "explore": ":material/database: Explore",
    "chat": ":material/forum: Chat",
    "rate": ":material/thumbs_up_down: Rate",
    "evaluate": ":material/play_circle: Evaluate",
}


def draw(name: str) -> None:
    """Draw a page; it is imported (with torch, for some) when it is first opened."""
    with st.spinner("Loading …"):
        module = importlib.import_module(f"sizewise.app.pages.{name}")
    module.page()


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
# In the query and not in the path: below another path, Streamlit looks for itself in vain at first.
with st.container(key="pages"):
    chosen = st.segmented_control(
        "Page",
        list(PAGES),
        format_func=PAGES.__getitem__,
        default="results",
        required=True,
        label_visibility="collapsed",
        key="page",
        bind="query-params",
    )
st.html(f'<p class="notice" role="note">{NOTICE}</p>')
draw(chosen or "results")
