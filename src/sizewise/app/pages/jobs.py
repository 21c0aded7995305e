"""Sweeps: one is started, and what runs has its board and curves, drawn anew every few seconds."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import streamlit as st

from sizewise.app.pages import common, figures, start
from sizewise.files import read_json
from sizewise.record.directories import JOB_FILE, RunDir, SweepDir
from sizewise.report.views.training import (
    LOGGED,
    TrainingCurve,
    logged_in,
    training_chart,
    training_curve,
)
from sizewise.sweep.board import COLUMNS, Board, Memory, board_rows, jobs_in, read_board

EVERY = "5s"
MOST_CURVES = 12
PLOT_HEIGHT, LINE_HEIGHT = 320, 22
SHOWN = "jobs_shown"


def page() -> None:
    common.head("Jobs", "What runs, how far it is, and how long it goes on.")
    with common.said_plainly():
        found = sweeps(common.arguments().directory)
    found = list(dict.fromkeys([*reversed(start.begun()), *found]))
    with st.expander("Start a sweep", icon=":material/add:", expanded=not found):
        start.form(_look_at)
    if not found:
        st.info("No sweep and no run below this directory yet.")
        return
    names = {path.name: path for path in reversed(found)}
    name = st.selectbox("Sweep or run", list(reversed(names)), key=SHOWN)
    _shown(names[name])


def _look_at(sweep_dir: Path) -> None:
    st.session_state[SHOWN] = sweep_dir.name


def sweeps(directory: Path) -> list[Path]:
    """The sweeps and single runs that a directory is or holds, those touched last first."""
    if _marks(directory):
        return [directory]
    inside = [mark for path in directory.iterdir() if path.is_dir() for mark in _marks(path)]
    latest = sorted(inside, key=lambda mark: mark.stat().st_mtime, reverse=True)
    return list(dict.fromkeys(mark.parent for mark in latest))


def _marks(directory: Path) -> list[Path]:
    """The files by which a directory is a sweep, one that has just been started, or a run."""
    sweep = SweepDir(directory)
    return [p for p in (sweep.plan, sweep.started, directory / JOB_FILE) if p.is_file()]


@st.fragment(run_every=EVERY)
def _shown(directory: Path) -> None:
    start.process_of(directory)
    if not (SweepDir(directory).plan.is_file() or (directory / JOB_FILE).is_file()):
        st.caption("It is being planned.")
        return
    with common.said_plainly():
        board = read_board(directory, memory=_memory(directory))
    st.markdown(f"**{common.escaped_markdown(board.title)}**")
    st.progress(board.ended / max(1, board.total))
    if board.running:
        rows = pd.DataFrame(board_rows(board), columns=list(COLUMNS)).set_index(COLUMNS[0])
        st.dataframe(rows, width="stretch")
    for name, why in board.failed:
        st.error(common.escaped_markdown(f"{name}: {why}"))
    with common.said_plainly():
        curves = loss_curves(directory, board)
    st.header("Training", anchor=False)
    there = [name for name in logged_in(curves) if name != "grad_norm"]
    if not there:
        st.caption("Nothing was logged yet.")
    for name in there:
        st.subheader(LOGGED[name], anchor=False)
        chart = training_chart(curves, name)
        chart.update_layout(height=PLOT_HEIGHT + LINE_HEIGHT * len(curves))  # a legend on phones
        figures.draw(chart, f"training_{name}")


def _memory(directory: Path) -> Memory:
    """What this visitor's looks at a sweep need not look up again."""
    kept: Memory = st.session_state.setdefault(f"board of {directory}", Memory())
    return kept


def loss_curves(directory: Path, board: Board) -> list[TrainingCurve]:
    """Curves of what runs, then of other jobs that logged something, a dozen at most."""
    parent, names = jobs_in(directory)
    running = [line.name for line in board.running]
    every = dict.fromkeys([*running, *names])
    curves = []
    for name in every:
        curve = training_curve(parent / name, called(parent / name))
        if curve.courses:
            curves.append(curve)
        if len(curves) == MOST_CURVES:
            break
    return curves


def called(run_dir: Path) -> str:
    """What a job is called beside others: its model and what a sweep most often varies."""
    config = (read_json(RunDir(run_dir).job) or {}).get("config") or {}
    model, lora, optimizer = (config.get(key) or {} for key in ("model", "lora", "optimizer"))
    if not model.get("name"):
        return run_dir.name
    values = {"r": lora.get("r"), "lr": optimizer.get("lr"), "seed": config.get("seed")}
    said = [f"{key}={value:.3g}" for key, value in values.items() if value is not None]
    return " ".join([str(model["name"]), *said])
