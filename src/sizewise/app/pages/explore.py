"""A data set before anything is trained on it: lengths, samples, repetitions, leaks, labels."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from sizewise.app.pages import common
from sizewise.app.pages.common import datasets, run_named
from sizewise.app.views import (
    explore_config,
    explore_overrides,
    leak_sentences,
    length_figure,
    size_rows,
)
from sizewise.config.targets import recorded_config
from sizewise.data.explore import Exploration

OTHER = "another data set …"
PLOT = {"displayModeBar": False}


def page() -> None:
    common.head("Explore", "What a model gets to read: sizes, token lengths, repetitions, leaks.")
    with common.said_plainly():
        known = datasets(common.library())
    left, right = st.columns([1, 2])
    name = left.selectbox("Data set", [*known, OTHER])
    text = "dataset=icd10_dialogues model=nano"
    if name == OTHER:
        text = right.text_input("Settings of dataset and model, as for train.py", text)
    with common.said_plainly():
        if name == OTHER:
            found = _other(text)
        else:
            found = _of_run(known[name].directory.name, common.arguments().directory.as_posix())
    _show(found)


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
        figure = length_figure(found, part)
        column.plotly_chart(figure, config=PLOT, key=f"lengths_{part}")
    table = pd.DataFrame(rows).set_index("split").T
    table.columns.name = None
    st.dataframe(table, width="stretch")
    st.header("Duplicates and leaks", anchor=False)
    st.markdown("\n".join(f"- {common.escaped_markdown(line)}" for line in leak_sentences(found)))
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
