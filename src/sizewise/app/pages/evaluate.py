"""An evaluation of a finished run, started here and watched."""

from __future__ import annotations

from html import escape

import streamlit as st

from sizewise.app.evaluations import Progress, RunningEvaluation, plan_evaluation
from sizewise.app.pages import common
from sizewise.app.pages.common import run_named
from sizewise.record.outcome import read_outcome
from sizewise.report.comparison.arms import run_names


@st.cache_resource
def started() -> dict[str, RunningEvaluation]:
    """Return the evaluations of this app by directory, for all browsers and reloads."""
    return {}


def page() -> None:
    common.head("Evaluate", "Score a finished run again, or on further test sets.")
    with common.said_plainly():
        runs = common.library().runs
    if not runs:
        common.nothing_here()
        return
    labels = {run.directory.name: label for run, label in run_names(runs)}
    name = st.selectbox("Run", list(labels), format_func=labels.__getitem__)
    text = st.text_input(
        "Further settings (optional)",
        placeholder="eval_dataset=[counsel_chat] eval_dataset.counsel_chat.source.path=FILE",
        help="Options of metric, eval_dataset and evaluation, as for evaluate.py. Data, decoding "
        "and metrics are those of the run.",
    )
    if st.button("Start", type="primary", icon=":material/play_arrow:"):
        _start(name, text)
    _watch()


def _start(name: str, text: str) -> None:
    with common.said_plainly():
        run = run_named(common.library(), name)
        given, settings = common.arguments(), common.split_settings(text)
        plan = plan_evaluation(run, given.outputs, settings, given.trust)
    key = str(plan.run_dir)
    before = started().get(key)
    if before is None or before.progress().state != "running":
        started()[key] = RunningEvaluation(plan)


@st.fragment(run_every=1.0)
def _watch() -> None:
    for key, running in reversed(list(started().items())):
        progress = running.progress()
        with st.container(border=True):
            st.html(f'<p class="who">{escape(running.plan.title)}</p>')
            _state(progress)
            if progress.state == "running" and st.button("Stop", key=f"stop {key}"):
                running.stop()
            if progress.state == "done":
                _scores(running)


def _state(progress: Progress) -> None:
    count = f"{progress.done:,}" + (f" of {progress.total:,}" if progress.total else "")
    if progress.state == "failed":
        st.error(common.escaped_markdown(f"Failed after {count} answers. {progress.message}"))
        return
    st.progress(progress.share, f"{progress.state}: {count} answers")
    if progress.state == "stopped":
        st.caption("Start the same evaluation again and it goes on from here.")


def _scores(running: RunningEvaluation) -> None:
    with common.said_plainly():
        outcome = read_outcome(running.plan.run_dir)
    for kind, evaluations in (("tuned", outcome.tuned or {}), ("base", outcome.base)):
        for dataset, evaluation in evaluations.items():
            value = evaluation.scores.get(outcome.primary)
            if value is not None:
                said = f"{dataset}, {kind}: {outcome.primary} {value:.4f}"
                st.html(common.text_block(f"{said} ({evaluation.examples} examples)"))
