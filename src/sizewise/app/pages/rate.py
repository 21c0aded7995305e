"""Blind ratings: a prompt, two answers in random order, no names."""

from __future__ import annotations

import streamlit as st

from sizewise.app.pages import common
from sizewise.report.comparison.arms import run_names
from sizewise.report.ratings.pairs import (
    Matchup,
    Presented,
    Side,
    make_matchup,
    next_unrated,
    present,
    sides_of,
)
from sizewise.report.ratings.store import RatingStore, ratings_summary

CHOICES = (("first", "First is better"), ("tie", "About the same"), ("second", "Second is better"))


def page() -> None:
    common.head("Rate", "Which answer is better? Order is random and names are hidden.")
    with common.said_plainly():
        named = run_names(common.library().runs)
        named.sort(key=lambda pair: pair[0].outcome.tuned is None)  # the question first
        sides = {
            f"{side.name} {side.dataset}": side
            for run, label in named
            for side in sides_of(run, label)
        }
    if not sides:
        common.nothing_here()
        return
    matchup, rater = _setup(sides)
    if matchup is None or not rater.strip():
        st.info("Enter your name to begin.")
        return
    with common.said_plainly():
        store = RatingStore(common.arguments().directory, rater)
        rated = store.rated(matchup)
    shown = present(matchup, store.rater)
    done = sum(p.pair.key in rated for p in shown)
    st.progress(done / len(shown), f"{done} of {len(shown)} rated")
    following = next_unrated(shown, rated)
    if following is not None:
        _ask(store, matchup, following)
    else:
        st.success("All pairs are rated. Thank you.")
        _results()


def _results() -> None:
    """Only for those who have rated everything: who knows the leader rates otherwise."""
    st.header("Results so far", anchor=False)
    with common.said_plainly():
        for summary in ratings_summary(common.arguments().directory):
            st.html(common.text_block(f"{summary.dataset}: {summary.sentence}", "panel"))


def _setup(sides: dict[str, Side]) -> tuple[Matchup | None, str]:
    names = list(sides)
    rater = st.text_input("Your name", max_chars=60, key="rater")
    with st.expander("What is compared", expanded=not rater.strip()):
        left, right = st.columns(2)

        def label(name: str) -> str:
            return f"{sides[name].label} ({sides[name].dataset})"

        one = left.selectbox("One model", names, format_func=label)
        others = [n for n in names if n != one and sides[n].dataset == sides[one].dataset]
        if not others:
            st.caption("There is no other model on this data set.")
            return None, rater
        two = right.selectbox("Another model", others, format_func=label)
        count = st.number_input("Pairs to rate", 1, 500, 30)
    with common.said_plainly():
        matchup = make_matchup(sides[one], sides[two], int(count))
    return matchup, rater


def _ask(store: RatingStore, matchup: Matchup, shown: Presented) -> None:
    st.html(common.panel("Prompt", shown.pair.prompt))
    texts = (("First answer", shown.first), ("Second answer", shown.second))
    for column, (who, text) in zip(st.columns(2), texts, strict=True):
        column.html(common.panel(who, text or "(no words)"))
    comment = st.text_input("Comment (optional)", key=f"comment_{shown.pair.key}")
    for column, (choice, label) in zip(st.columns(3), CHOICES, strict=True):
        key = f"{choice}_{shown.pair.key}"
        if column.button(label, key=key, width="stretch"):
            with common.said_plainly():
                store.add(matchup, shown, choice, comment)
            st.rerun()
