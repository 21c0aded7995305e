"""Results of a sweep: verdict, quality against cost, single answers, histograms."""

from __future__ import annotations

from html import escape

import streamlit as st

from sizewise.app.pages import common
from sizewise.app.views import (
    KINDS,
    Row,
    clicked,
    example_rows,
    histogram_figure,
    metric_names,
    metric_values,
    pareto_figure,
    select,
)
from sizewise.report import words
from sizewise.report.comparison.arms import Arm, TestSet
from sizewise.report.comparison.compare import SetComparison
from sizewise.report.comparison.contrast import scale_of
from sizewise.report.comparison.points import COSTS
from sizewise.report.ratings.store import ratings_summary


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


PLOT = {"displayModeBar": False, "scrollZoom": False}
ARM = "results_arm"
MOST = 4


def page() -> None:
    with common.said_plainly():
        comparison = common.comparison()
    if not comparison.sets:
        common.nothing_here()
        return
    names = [f"{s.test.dataset} · {s.test.primary}" for s in comparison.sets]
    place = 0
    if len(names) > 1:
        place = st.selectbox("Test set", range(len(names)), format_func=names.__getitem__)
    compared = comparison.sets[place]
    st.html(
        f'<p class="lead">{escape(names[place])} · {compared.test.size} · '
        f"{compared.verdict.status}</p>"
        f'<p class="verdict">{escape(compared.verdict.headline)}</p>'
        f'<p class="lead">{escape(compared.verdict.sentence)}</p>'
    )
    _pareto(compared, place)
    _chosen(compared, place)
    _histogram(compared, place)
    _table(compared)
    _ratings()


def _pareto(compared: SetComparison, place: int) -> None:
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
    event = st.plotly_chart(
        pareto_figure(compared, fronts[cost]),
        on_select="rerun",
        selection_mode="points",
        config=PLOT,
        key=f"pareto{place}{cost}",
    )
    chosen = clicked(event)
    if chosen is not None and chosen != st.session_state.get("results_clicked"):
        st.session_state[f"{ARM}{place}"] = chosen
    st.session_state["results_clicked"] = chosen
    st.caption("Click a point to see the model and its answers below.")


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
        facts.append(("Seconds per answer", f"{arm.latency:.3g}"))
    if arm.train_seconds is not None:
        facts.append(("Seconds of training", f"{arm.train_seconds:.0f}"))
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
    if len(names) <= 0:
        return
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
    st.plotly_chart(histogram_figure(values, name), config=PLOT, key=f"histogram{place}")


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
