"""The jobs of a sweep while it runs: its board, drawn anew every few seconds, and loss curves."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import streamlit as st

from sizewise.app.pages import common, figures
from sizewise.record.directories import JOB_FILE, SweepDir
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


def page() -> None:
    common.head("Jobs", "What runs, how far it is, and how long it goes on.")
    with common.said_plainly():
        found = sweeps(common.arguments().directory)
    if not found:
        st.info("No sweep and no run below this directory. Start one with `python train.py`.")
        return
    names = {path.name: path for path in found}
    name = st.selectbox("Sweep or run", list(names)) if len(names) > 1 else next(iter(names))
    _shown(names[name])


def sweeps(directory: Path) -> list[Path]:
    """The sweeps and single runs that a directory is or holds, those touched last first."""
    if SweepDir(directory).plan.is_file() or (directory / JOB_FILE).is_file():
        return [directory]
    plans = [SweepDir(path).plan for path in directory.iterdir() if path.is_dir()]
    marks = [mark for plan in plans for mark in (plan, plan.with_name(JOB_FILE)) if mark.is_file()]
    latest = sorted(marks, key=lambda mark: mark.stat().st_mtime, reverse=True)
    return list(dict.fromkeys(mark.parent for mark in latest))


@st.fragment(run_every=EVERY)
def _shown(directory: Path) -> None:
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
        figures.draw(training_chart(curves, name), f"training_{name}")


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
        curve = training_curve(parent / name)
        if curve.courses:
            curves.append(curve)
        if len(curves) == MOST_CURVES:
            break
    return curves
