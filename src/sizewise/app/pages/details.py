"""What is behind the answer: charts of the report, single answers, training, tables, files."""

from __future__ import annotations

from functools import partial

import plotly.graph_objects as go
import streamlit as st

from sizewise import words
from sizewise.app.pages import common, figures
from sizewise.app.views import (
    KINDS,
    Row,
    clicked,
    example_rows,
    metric_names,
    metric_values,
    select,
)
from sizewise.report.comparison.arms import Arm, TestSet
from sizewise.report.comparison.compare import Comparison, SetComparison
from sizewise.report.comparison.contrast import scale_of
from sizewise.report.comparison.points import COSTS
from sizewise.report.page.page import charts_of, render_page
from sizewise.report.page.results import results_text
from sizewise.report.page.tables import csv_text
from sizewise.report.ratings.store import ratings_summary
from sizewise.report.views.distributions import histogram_chart
from sizewise.report.views.quality import quality_chart
from sizewise.report.views.training import LOGGED, logged_in, training_chart, training_curves

ARM = "results_arm"
MOST = 4
# The charts of the report that are not drawn elsewhere, by the beginnings of their names.
OTHERS = {
    "strata": "Where it wins and loses",
    "forest": "Every pair that was tested",
    "ranks": "Ranks of the adapter",
    "learning": "Amounts of training data",
    "scaling": "Size of an equal general model",
    "hybrid": "Small model first, large one in doubt",
    "calibration": "Confidence",
    "confusion": "Confusions",
}


def show(comparison: Comparison, place: int) -> None:
    compared = comparison.sets[place]
    _quality(compared, place)
    _chosen(compared, place)
    _histogram(compared, place)
    _charts(compared, place)
    _training(compared, place)
    _table(compared)
    _ratings()
    _downloads(comparison)


def _quality(compared: SetComparison, place: int) -> None:
    if not compared.fronts:
        return
    st.header("Quality against cost", anchor=False)
    fronts = {front.cost: front for front in compared.fronts}
    cost = st.segmented_control(
        "Cost",
        list(fronts),
        format_func=lambda name: COSTS[name].split(" (")[0],
        default=next(iter(fronts)),
        required=True,
        label_visibility="collapsed",
        key=f"cost{place}",
    )
    test = compared.test
    figure = quality_chart(test, compared.points, fronts[cost], scale_of(test))
    figure.update_layout(clickmode="event+select", dragmode="pan")
    event = figures.draw(figure, f"pareto{place}{cost}", on_select="rerun", selection_mode="points")
    chosen = clicked(event)
    if chosen is not None and chosen != st.session_state.get("results_clicked"):
        st.session_state[f"{ARM}{place}"] = chosen
    st.session_state["results_clicked"] = chosen
    st.caption(
        "Colour is the base, shape the method; bars are 95 % intervals; the grey steps are the "
        "Pareto front. Click a point to see the model and its answers below."
    )


def _chosen(compared: SetComparison, place: int) -> None:
    test = compared.test
    st.header("Model and answers", anchor=False)
    best = max(range(len(test.arms)), key=lambda i: _rank(compared, i))
    st.session_state.setdefault(f"{ARM}{place}", best)
    position = st.selectbox(
        "Model",
        range(len(test.arms)),
        format_func=lambda i: test.arms[i].label,
        key=f"{ARM}{place}",
    )
    arm = test.arms[position]
    model = arm.model
    score = arm.score(test.primary)
    facts = [
        (test.primary, scale_of(test).value(score)),
        ("Parameters", words.count(arm.params)),
    ]
    if arm.latency is not None:
        facts.append(("Time per answer", words.seconds(arm.latency)))
    if arm.train_seconds is not None:
        facts.append(("Training", words.seconds(arm.train_seconds)))
    with st.container(horizontal=True, gap="large"):
        for name, value in facts:
            st.metric(common.escaped_markdown(name), value, width="content")
    seeds = f", seeds {', '.join(map(str, arm.seeds))}" if arm.seeds else ""
    where = ", ".join(dict.fromkeys(m.run.directory.name for m in arm.members))
    st.caption(common.escaped_markdown(f"{model.path} · {arm.kind}{seeds} · {where}"))
    show_answers(test, arm, f"{place}_{position}")


def _rank(compared: SetComparison, position: int) -> tuple[bool, float, bool]:
    arm = compared.test.arms[position]
    score = arm.score(compared.test.primary)
    known = score == score
    return known, compared.test.sign * score if known else 0.0, arm.tuned


def _histogram(compared: SetComparison, place: int) -> None:
    test = compared.test
    names = metric_names(test)
    st.header("Distribution over examples", anchor=False)
    left, right = st.columns([1, 2])
    name = left.selectbox("Metric", names, key=f"metric{place}")
    shown = right.multiselect(
        "Models",
        range(len(test.arms)),
        default=list(range(min(2, len(test.arms)))),
        format_func=lambda i: test.arms[i].label,
        max_selections=MOST,
        key=f"shown{place}",
    )
    values = {test.arms[i].label: metric_values(test, test.arms[i], name) for i in shown}
    if not any(array.size for array in values.values()):
        st.caption("These models have no values of this metric.")
        return
    figures.draw(histogram_chart(values, name), f"histogram{place}")


def _charts(compared: SetComparison, place: int) -> None:
    """The other charts of the report, one at a time."""
    drawn = _other_charts(compared)
    if not drawn:
        return
    st.header("More of the report", anchor=False)
    title = st.selectbox("Chart", list(drawn), key=f"chart{place}")
    figures.draw(drawn[title], f"chart{place}_{title}")


def _other_charts(compared: SetComparison) -> dict[str, go.Figure]:
    strata = [stratum.name.replace("_", " ") for stratum in compared.views.strata]
    found = {}
    drawn = [(name.partition("-"), figure) for name, figure in charts_of(compared).items()]
    for wanted, title in OTHERS.items():
        for (kind, _, number), figure in drawn:
            if kind == wanted:
                more = strata[int(number)] if kind == "strata" else number and f"{int(number) + 1}"
                found[f"{title}: {more}" if more else title] = figure
    return found


def _training(compared: SetComparison, place: int) -> None:
    curves = training_curves(compared.test)
    logged = logged_in(curves)
    if not logged:
        return
    st.header("Training", anchor=False)
    name = st.segmented_control(
        "Value",
        logged,
        format_func=LOGGED.__getitem__,
        default=logged[0],
        required=True,
        label_visibility="collapsed",
        key=f"training{place}",
    )
    figures.draw(training_chart(curves, name), f"curves{place}{name}")


def _table(compared: SetComparison) -> None:
    with st.expander("All configurations"):
        frame = compared.everything.dropna(axis="columns", how="all")
        st.dataframe(frame, hide_index=True, width="stretch")


def _ratings() -> None:
    with common.said_plainly():
        found = ratings_summary(common.arguments().directory)
    if found:
        st.header("Blind ratings", anchor=False)
        for summary in found:
            st.html(common.text_block(f"{summary.dataset}: {summary.sentence}", "panel"))


def _downloads(comparison: Comparison) -> None:
    """The files of the report, made when they are asked for."""
    title = common.arguments().directory.name
    files = {
        "Report": ("report.html", "text/html", partial(render_page, comparison, title)),
        "Results": ("results.json", "application/json", partial(results_text, comparison)),
        "Table": ("comparison.csv", "text/csv", lambda: csv_text(comparison.table)),
        "Runs": ("runs.csv", "text/csv", lambda: csv_text(comparison.runs_table)),
    }
    st.header("Files", anchor=False)
    with st.container(horizontal=True):
        for name, (file, kind, make) in files.items():
            label = f"{name} ({file.rpartition('.')[2].upper()})"
            st.download_button(
                label, make, file, kind, on_click="ignore", icon=":material/download:"
            )


def show_answers(test: TestSet, arm: Arm, key: str) -> None:
    """Show one example at a time, with filters and steps."""
    with common.said_plainly():
        rows = example_rows(test, arm)
    if not rows:
        st.caption("The answers of this model are not here.")
        return
    compares = any(row.base is not None for row in rows)
    left, middle = st.columns(2)
    text = left.text_input("Search in prompts and answers", key=f"search{key}")
    kind = KINDS[0]
    if compares:
        kind = middle.selectbox("Show", KINDS, key=f"kind{key}")
    found = select(rows, test, kind, text)
    if not found:
        st.caption("No example fits.")
        return
    _one(test, arm, found, key)


def _one(test: TestSet, arm: Arm, found: list[Row], key: str) -> None:
    place = f"example{key}"
    # Filters may have left fewer examples than the one that was shown.
    st.session_state[place] = min(st.session_state.get(place, 1), len(found))
    left, _ = st.columns([1, 3])
    number = left.number_input(f"Example (of {len(found):,})", 1, len(found), key=place)
    row = found[int(number) - 1]
    st.html(common.panel("Prompt", row.own.prompt))
    texts = [("Reference", row.own.reference)]
    if row.base is not None:
        texts.append((f"Base{_score(row.base.scores, test)}", row.base.text))
    texts.append((f"{arm.label}{_score(row.own.scores, test)}", row.own.text))
    for column, (who, text) in zip(st.columns(len(texts)), texts, strict=True):
        column.html(common.panel(who, text))


def _score(scores: object, test: TestSet) -> str:
    value = scores.get(test.primary) if isinstance(scores, dict) else None
    return "" if value is None else f" · {value:.3g}"
