"""Starting a sweep: what is asked, its plan and what it takes, and the process that does it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import streamlit as st

from sizewise.app.pages import common
from sizewise.app.pages.explore import TABLE
from sizewise.app.sweeps import (
    Asked,
    Planning,
    Table,
    asked_for,
    data_options,
    last_words,
    shipped_sweeps,
    start,
    started_of,
    stop,
    sweeps_folder,
    table_overrides,
)
from sizewise.errors import SizewiseError
from sizewise.record.directories import SweepDir

AS_IT_SAYS = "as the sweep says"
UPLOADED = "the CSV file uploaded on Explore"
FIRST = "my_question"
PLANNING = "sweep_planning"
SAID = "sweep_said"
EVERY = "1s"


@st.cache_resource
def begun() -> dict[Path, None]:
    """The directories of the sweeps that this app started, last first when reversed."""
    return {}


def form(shown: Callable[[Path], None]) -> None:
    """Ask for a sweep, show its plan, start it; ``shown`` is told its directory then."""
    name, data = _chosen()
    missing = data == UPLOADED and TABLE not in st.session_state
    if missing:
        st.info("Upload the file on the page Explore first, and say there what its columns are.")
    if st.button("Show the plan", icon=":material/list_alt:", disabled=missing):
        _plan(name, data, st.session_state.get("sweep_more", ""))
    if SAID in st.session_state:
        st.error(common.escaped_markdown(st.session_state[SAID]))
    planning: Planning | None = st.session_state.get(PLANNING)
    if planning is not None:
        _planned(planning, shown)


def _chosen() -> tuple[str, str]:
    """The sweep and the data that are chosen; further settings are kept by their widget."""
    sweeps = shipped_sweeps()
    names = sorted(sweeps, key=lambda name: (name != FIRST, name))
    left, right = st.columns(2)
    name = left.selectbox("Sweep", names, key="sweep_named")
    data = right.selectbox("Data", [AS_IT_SAYS, UPLOADED, *data_options()], key="sweep_data")
    st.caption(common.escaped_markdown(sweeps[name]))
    st.text_input(
        "Further settings (optional)",
        key="sweep_more",
        placeholder="sweep.general=mini sweep.specialised=nano,micro dataset.max_train=400",
        help="As for train.py: named options of models, data, adapters and training, and plain "
        "values of them. What calls a class, a command or a server belongs on the command line.",
    )
    return name, data


def _plan(name: str, data: str, more: str) -> None:
    forget()
    try:
        folder = sweeps_folder(common.arguments().directory)
        words = [f"sweep={name}", *_data(data, folder)]
        asked = asked_for(words, common.split_settings(more), folder)
    except SizewiseError as error:
        st.session_state[SAID] = str(error)
    else:
        st.session_state[PLANNING] = Planning(asked)


def _data(chosen: str, folder: Path) -> list[str]:
    if chosen == UPLOADED:
        table: Table = st.session_state[TABLE]
        return table_overrides(table, folder)
    return [] if chosen == AS_IT_SAYS else [f"dataset={chosen}"]


def forget() -> None:
    """Leave a plan that is shown or being made."""
    st.session_state.pop(SAID, None)
    if PLANNING in st.session_state:
        st.session_state.pop(PLANNING).stop()


def _planned(planning: Planning, shown: Callable[[Path], None]) -> None:
    if planning.exit_code is None:
        _wait(planning)
        return
    if planning.exit_code != 0:
        st.error(common.escaped_markdown(planning.refusal))
        return
    lines = [f"- {common.escaped_markdown(line)}" for line in planning.sentences]
    st.markdown("\n".join(lines))
    st.code(planning.table, language=None, height=260)
    place = common.escaped_markdown(str(planning.asked.sweep_dir))
    st.caption(f"It is written to {place}. The same command there goes on with it.")
    left, right, _ = st.columns([1, 1, 3])
    left.button(
        "Start",
        type="primary",
        icon=":material/play_arrow:",
        on_click=_start,
        args=(planning.asked, shown),
    )
    right.button("Leave it", on_click=forget)


@st.fragment(run_every=EVERY)
def _wait(planning: Planning) -> None:
    """Show what the planning says until it has ended; then the page is drawn anew."""
    if planning.exit_code is not None:
        st.rerun()
    st.caption("Planning: every job is composed, and a few steps are timed.")
    if text := planning.text:
        st.code(text, language=None, height=160)


def _start(asked: Asked, shown: Callable[[Path], None]) -> None:
    try:
        start(asked)
    except SizewiseError as error:
        st.session_state[SAID] = str(error)
        return
    forget()
    begun()[asked.sweep_dir] = None
    shown(asked.sweep_dir)


def process_of(sweep_dir: Path) -> None:
    """Say what the process does that was started here for a sweep, with a button that ends it."""
    started = started_of(sweep_dir)
    if started is None:
        return
    if started.process is not None:
        st.caption(
            f"Started here (process {started.pid}). It goes on when this page or the app is closed."
        )
        st.button(
            "Stop", icon=":material/stop_circle:", key="sweep_stop", on_click=_stop, help=STOPS,
            args=(sweep_dir,),
        )  # fmt: skip
    elif SweepDir(sweep_dir).summary.is_file():
        st.caption(
            "It has ended. Its answer is on the page Results once this folder is read again."
        )
    if text := last_words(sweep_dir):
        with st.expander("What it said last", expanded=started.process is None):
            st.code(text, language=None)


STOPS = (
    "Running jobs save where they are; the same sweep started again goes on from there. "
    "Pressed again, they end at once."
)


def _stop(sweep_dir: Path) -> None:
    try:
        stop(sweep_dir)
    except SizewiseError as error:
        st.toast(str(error))
