"""What the pages share: arguments, cached runs, errors as messages, texts that stay texts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path

import streamlit as st

from sizewise.app.crisis.detector import CrisisDetector
from sizewise.app.crisis.settings import CrisisSettings, read_settings
from sizewise.app.library import load_library, stamp
from sizewise.errors import SizewiseError
from sizewise.report.comparison import Comparison, compare_loaded
from sizewise.report.load import Loaded

NOTICE = (
    "<strong>Research, not care.</strong> These models can be wrong and can do harm. "
    "They replace no doctor and no counsellor."
)
CSS = """
.block-container, .stMainBlockContainer { max-width: 1080px; padding-top: 4.5rem; }
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
@media (max-width: 640px) { .block-container, .stMainBlockContainer { padding: 4rem 1rem 5rem; } }
"""


@dataclass(frozen=True)
class Arguments:
    """What ``sizewise app`` passes on."""

    directory: Path
    outputs: Path
    crisis: Path | None


@st.cache_resource
def arguments() -> Arguments:
    """Return the arguments of this app."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--outputs", type=Path, default=Path("outputs"))
    parser.add_argument("--crisis", type=Path)
    return Arguments(**vars(parser.parse_args(sys.argv[1:])))


def library() -> Loaded:
    """Return the runs of the directory, read again when a record has changed."""
    directory = arguments().directory
    return _library(directory, stamp(directory))


def comparison() -> Comparison:
    """Return the comparison of all runs, computed again when a record has changed."""
    directory = arguments().directory
    return _comparison(directory, stamp(directory))


@st.cache_resource(max_entries=2, show_spinner=False)
def _library(directory: Path, _changed: str) -> Loaded:
    return load_library(directory)


@st.cache_resource(max_entries=2, show_spinner="Comparing the runs …")
def _comparison(directory: Path, changed: str) -> Comparison:
    return compare_loaded(_library(directory, changed))


@st.cache_resource
def crisis_settings() -> CrisisSettings:
    """Return the settings of the crisis detector."""
    return read_settings(arguments().crisis)


@st.cache_resource(show_spinner="Preparing the crisis detector …")
def crisis_detector() -> CrisisDetector:
    """Return the detector, made once."""
    return crisis_settings().detector()


@contextmanager
def said_plainly() -> Iterator[None]:
    """Show an error that sizewise raises on purpose as one message and stop the page."""
    try:
        yield
    except SizewiseError as error:
        st.error(escaped_markdown(str(error)))
        st.stop()


def head(title: str, lead: str) -> None:
    """Write a page's title and one sentence."""
    st.title(title, anchor=False)
    st.html(f'<p class="lead">{escape(lead)}</p>')


def text_block(text: str, kind: str = "text") -> str:
    """HTML of a text from data or models: shown as it is, never run, nothing fetched for it."""
    return f'<div class="{kind} text">{escape(text)}</div>'


def panel(who: str, text: str) -> str:
    """HTML of a text with a name above it."""
    return f'<p class="who">{escape(who)}</p>{text_block(text, "panel")}'


def escaped_markdown(text: str) -> str:
    """Return ``text`` with every character of Markdown's own escaped."""
    return "".join(f"\\{c}" if c in r"\`*_{}[]()#+-.!|<>~:$" else c for c in text)


def nothing_here() -> None:
    """Say that there is no finished run, and how to make one."""
    st.info(
        f"No finished run below {escaped_markdown(str(arguments().directory))}. "
        "Start one with `python train.py`, then reload."
    )
