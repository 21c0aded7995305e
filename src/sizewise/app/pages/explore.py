"""A data set before anything is trained on it: lengths, samples, repetitions, leaks, labels."""

from __future__ import annotations

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import streamlit as st

from sizewise.app.exploring import (
    explore_config,
    explore_overrides,
    explore_table,
    size_rows,
)
from sizewise.app.pages import common, figures
from sizewise.app.pages.common import datasets, run_named
from sizewise.app.sweeps import Table
from sizewise.config.targets import recorded_config
from sizewise.data.explore import Exploration
from sizewise.errors import DataError
from sizewise.files import written_whole
from sizewise.report.views.distributions import length_chart

OTHER = "another data set …"
UPLOAD = "a CSV file of mine …"
TABLE = "uploaded table"


def page() -> None:
    common.head("Explore", "What a model gets to read: sizes, token lengths, repetitions, leaks.")
    with common.said_plainly():
        known = datasets(common.library())
    left, right = st.columns([1, 2])
    name = left.selectbox("Data set", [*known, UPLOAD, OTHER])
    with common.said_plainly():
        if name == UPLOAD:
            found = _uploaded(right)
        elif name == OTHER:
            text = "dataset=icd10_dialogues model=nano"
            found = _other(right.text_input("Settings of dataset and model, as for train.py", text))
        else:
            found = _of_run(known[name].directory.name, common.arguments().directory.as_posix())
    if found is not None:
        _show(found)


@st.cache_resource
def _folder() -> TemporaryDirectory[str]:
    """Where uploaded files are kept while the app runs."""
    return TemporaryDirectory(prefix="sizewise-uploads-")


def _uploaded(place: Any) -> Exploration | None:
    """Ask for a file and which of its columns are question and answer; None until both are said."""
    file = place.file_uploader("CSV file; it stays on this machine", type=["csv"])
    if file is None:
        return None
    content = file.getvalue()
    folder = Path(_folder().name) / hashlib.sha256(content).hexdigest()[:16]
    path = folder / "uploaded.csv"
    if not path.is_file():
        _write(path, content)
    columns = _columns(path)
    left, right = st.columns(2)
    prompt = left.selectbox("Column of the question", columns, 0)
    answer = right.selectbox("Column of the answer", columns, len(columns) - 1)
    st.session_state[TABLE] = Table(path, file.name, str(prompt), str(answer))
    st.caption("A sweep on this file: page Jobs, *Start a sweep*.")
    return _of_table(path.as_posix(), str(prompt), str(answer))


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise DataError(f"The file cannot be kept: {error}. Make room there.") from error


def _columns(path: Path) -> list[str]:
    try:
        return list(map(str, pd.read_csv(path, nrows=5).columns))
    except (ValueError, OSError) as error:
        raise DataError(f"The file is no table: {error}. Save it as CSV, in UTF-8.") from error


@st.cache_data(max_entries=8, show_spinner="Reading the data …")
def _of_table(path: str, prompt: str, answer: str) -> Exploration:
    return explore_table(Path(path), prompt, answer)


@st.cache_data(max_entries=8, show_spinner="Reading the data …")
def _of_run(directory_name: str, _root: str) -> Exploration:
    run = run_named(common.library(), directory_name)
    return explore_config(recorded_config(run.outcome.config))


@st.cache_data(max_entries=8, show_spinner="Reading the data …")
def _other(text: str) -> Exploration:
    return explore_overrides(common.split_settings(text))


def _show(found: Exploration) -> None:
    rows = size_rows(found)
    st.header("Token lengths", anchor=False)
    for column, part in zip(st.columns(2), ("prompt", "answer"), strict=True):
        with column:
            figures.draw(length_chart(found, part), f"lengths_{part}")
    table = pd.DataFrame(rows).set_index("split").T
    table.columns.name = None
    st.dataframe(table, width="stretch")
    st.header("Duplicates and leaks", anchor=False)
    st.markdown("\n".join(f"- {common.escaped_markdown(line)}" for line in found.sentences))
    _labels(found)
    _samples(found)


def _labels(found: Exploration) -> None:
    counts = {split: dict(labels.counts) for split, labels in found.labels.items()}
    if not any(counts.values()):
        return
    st.header("Labels", anchor=False)
    frame = pd.DataFrame(counts).fillna(0).astype(int)
    frame = frame.sort_values(list(frame.columns), ascending=False)
    never = {s: len(labels.unseen) for s, labels in found.labels.items() if labels.unseen}
    if never:
        said = ", ".join(f"{count} of {split}" for split, count in never.items())
        st.caption(f"Never seen in training: {said}.")
    st.dataframe(frame, height=260, width="stretch")


def _samples(found: Exploration) -> None:
    if not found.samples:
        return
    st.header("Samples", anchor=False)
    left, _ = st.columns([1, 3])
    total = len(found.samples)
    number = left.number_input(f"Sample (of {total}, drawn at random)", 1, total)
    example = found.samples[int(number) - 1]
    for message in example.messages:
        st.html(common.panel(message.role, message.text))
    st.html(common.panel("answer", example.answer))
