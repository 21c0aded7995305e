"""What the pages share: arguments, cached runs, errors as messages, texts that stay texts."""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import streamlit as st

from sizewise.app.answers import Written, read_written
from sizewise.app.crisis.detector import CrisisDetector
from sizewise.app.crisis.settings import CrisisSettings, read_settings
from sizewise.config import PricesConfig
from sizewise.errors import ConfigError, OutcomeError, SizewiseError
from sizewise.record.directories import OUTCOME_FILE

if TYPE_CHECKING:
    from sizewise.report.comparison.compare import Comparison
    from sizewise.report.comparison.runs import Loaded, Run


Kept = TypeVar("Kept")
KEPT = "kept"


@dataclass(frozen=True)
class Arguments:
    directory: Path
    outputs: Path
    crisis: Path | None
    trust: bool


@st.cache_resource
def arguments() -> Arguments:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--outputs", type=Path, default=Path("outputs"))
    parser.add_argument("--crisis", type=Path)
    parser.add_argument("--trust", action="store_true")
    return Arguments(**vars(parser.parse_args(sys.argv[1:])))


def library() -> Loaded:
    """The runs of the directory, read again when a record has changed."""
    directory = arguments().directory
    return _library(directory, stamp(directory))


def written() -> Written | None:
    """What the report of the directory left, unless a run is newer."""
    return read_written(arguments().directory)


def comparison(like: Written | None = None) -> Comparison:
    """Return the comparison of all runs, computed again when a record has changed.

    ``like``: at the margin and prices of a report.
    """
    directory = arguments().directory
    margin, prices = (None, "{}") if like is None else (like.margin, json.dumps(like.prices))
    return _comparison(directory, stamp(directory), margin, prices)


@st.cache_resource(max_entries=2, show_spinner=False)
def _library(directory: Path, changed: str) -> Loaded:
    from sizewise.report.comparison.runs import load_runs

    return load_runs([directory])


@st.cache_resource(max_entries=2, show_spinner="Comparing the runs …")
def _comparison(directory: Path, changed: str, margin: float | None, prices: str) -> Comparison:
    from sizewise.report.comparison.compare import compare_loaded

    asked = PricesConfig(**json.loads(prices))
    return compare_loaded(_library(directory, changed), prices=asked, margin=margin)


@st.cache_resource
def crisis_settings() -> CrisisSettings:
    return read_settings(arguments().crisis)


@st.cache_resource(show_spinner="Preparing the crisis detector …")
def crisis_detector() -> CrisisDetector:
    return crisis_settings().detector()


@st.cache_resource
def crisis_phrases() -> CrisisDetector:
    return crisis_settings().watcher()


@contextmanager
def said_plainly() -> Iterator[None]:
    """Show an error that sizewise raises on purpose as one message and stop the page."""
    try:
        yield
    except SizewiseError as error:
        st.error(escaped_markdown(str(error)))
        st.stop()


def kept(key: str, default: Kept, options: Sequence[Kept] | None = None) -> Kept:
    """Return what the widget with this key was last set to, for its default.

    Streamlit forgets a widget once a page is drawn without it. To set its state instead would not
    reach a widget in a popover that is still closed.

    Args:
        options: where what was chosen is none of them any more, ``default`` is returned.
    """
    values = st.session_state.setdefault(KEPT, {})
    value: Kept = st.session_state.get(key, values.get(key, default))
    values[key] = value if options is None or value in options else default
    return values[key]


def head(title: str, lead: str) -> None:
    st.title(title, anchor=False)
    st.html(f'<p class="lead">{escape(lead)}</p>')


def text_block(text: str, kind: str = "text") -> str:
    """HTML of a text from data or models: shown as it is, never run, nothing fetched for it."""
    return f'<div class="{kind} text">{escape(text)}</div>'


def panel(who: str, text: str) -> str:
    """HTML of a text with a name above it."""
    return f'<p class="who">{escape(who)}</p>{text_block(text, "panel")}'


def escaped_markdown(text: str) -> str:
    return "".join(f"\\{c}" if c in r"\`*_{}[]()#+-.!|<>~:$" else c for c in text)


def split_settings(text: str) -> list[str]:
    """Split settings as a shell would; ConfigError for a quote without an end."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"Settings {text!r}: {error}. Close the quote.") from error


def nothing_here() -> None:
    """Say that there is no finished run, and how to make one."""
    st.info(
        f"No finished run below {escaped_markdown(str(arguments().directory))}. "
        "Start one on the page Jobs, or with `python train.py`."
    )


def stamp(directory: Path) -> str:
    """Return a text that changes when a record below ``directory`` comes, goes or changes."""
    digest = hashlib.sha256()
    for path in sorted(directory.rglob(OUTCOME_FILE)):
        try:
            facts = path.stat()
        except OSError:
            continue
        digest.update(f"{path}:{facts.st_mtime_ns}:{facts.st_size}\n".encode())
    return digest.hexdigest()


def run_named(loaded: Loaded, directory_name: str) -> Run:
    """Return the run whose directory has this name, else OutcomeError."""
    for run in loaded.runs:
        if run.directory.name == directory_name:
            return run
    raise OutcomeError(f"There is no finished run {directory_name!r} any more. Choose another.")


def datasets(loaded: Loaded) -> dict[str, Run]:
    """Return, for every data set that was trained or scored on, one run that names it.

    One of a language model where there is such a run: another reads no tokens.
    """
    found: dict[str, Run] = {}
    for run in sorted(loaded.runs, key=lambda run: not _reads_tokens(run)):
        found.setdefault(run.outcome.data.name, run)
    return dict(sorted(found.items()))


def _reads_tokens(run: Run) -> bool:
    return run.outcome.model.family in ("causal", "seq2seq")
