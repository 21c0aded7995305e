"""May the judges be believed? Position, what people said, and whether all were judged alike."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from sizewise.composition.others import judge_key, judge_nodes, judges_of, panel_key
from sizewise.errors import ConfigError
from sizewise.metrics.reading.judged import (
    JUDGED,
    both_orders,
    decided,
    habits,
    points_of,
    verdict_of,
)
from sizewise.report.comparison.arms import Member, TestSet
from sizewise.report.ratings.judges import JudgeAgreement, read_agreements
from sizewise.statistics.agreement import WinRate, krippendorff_alpha, win_rate

PREFIX = "judge/"
LEAST_KAPPA = 0.4
MOST_UNREAD = 0.1
MOST_LEANING = 0.1
LEAST_ALPHA = 0.667  # below it conclusions are not even tentative (Krippendorff 2004, p. 241)
Row = Mapping[str, float]


@dataclass(frozen=True)
class JudgeQuality:
    """What is known of one judge on one test set, over all models that it judged there.

    Attributes:
        steady: share of the pairs decided in both orders where the same answer won, with its
            interval over examples; None where no pair was decided so.
        first: share of its decisions for the answer that stood first.
        unread: share of its answers that could not be read.
        people: its agreement with people; None where that was not measured.
    """

    name: str
    steady: WinRate | None
    first: float | None
    unread: float
    people: JudgeAgreement | None

    @property
    def fault(self) -> str:
        """Why it is not usable; empty where it is.

        Whoever draws lots is steady in half of the pairs, whoever goes by the order in none.
        """
        kappa = self.people.kappa if self.people is not None else None
        if self.unread > MOST_UNREAD:
            return f"{self.name} gave no readable answer in {_percent(self.unread)}"
        if self.steady is None:
            return f"{self.name} preferred no answer in both orders"
        if self.steady.interval.low <= 0.5:
            by_order = self.steady.rate <= 0.5
            what = "the order decides for" if by_order else "too few pairs tell whether to believe"
            ends = (self.steady.interval.low, self.steady.interval.high)
            low, high = (_percent(end) for end in ends)
            return (
                f"{what} {self.name}: of {self.steady.wins + self.steady.losses} pairs that it "
                f"decided in both orders the same answer won in {_percent(self.steady.rate)} (95 % "
                f"interval {low} to {high}; lots give 50 %)"
            )
        if kappa is not None and kappa < LEAST_KAPPA:
            return (
                f"{self.name} agrees too little with people (Cohen's kappa {kappa:.2f}, below "
                f"{LEAST_KAPPA})"
            )
        return ""


def judges_on(test: TestSet) -> list[JudgeQuality]:
    """Return what is known of every judge of a test set."""
    members = [member for arm in test.arms for member in arm.members]
    rows = [(key, row) for member in members for key, row in _rows(test, member)]
    keys = {name: key for member in members for name, key in _names(member)}
    people = read_agreements(sorted(_places(members)))
    return [_quality(name, rows, people.get(keys[name])) for name in sorted(keys)]


def unusable_judges(test: TestSet) -> str:
    """Say why a test set that is scored by judges gives no verdict; empty where it may."""
    if not test.primary.startswith(PREFIX):
        return ""
    panels = {
        panel_key(node)
        for arm in test.arms
        for member in arm.members
        for node in judge_nodes(member.run.outcome.config)
    }
    if len(panels) > 1:
        return "the models were not all judged by the same judges, prompt and opponent"
    judges = judges_on(test)
    if not judges:
        return "the record does not name who judged"
    return "; ".join(judge.fault for judge in judges if judge.fault)


def judge_warnings(test: TestSet) -> Iterator[str]:
    """Yield what a reader has to know of the judges, each one sentence."""
    judges = judges_on(test)
    for judge in judges:
        if judge.fault:
            yield f"A judge is not usable: {judge.fault}."
        first = 0.5 if judge.first is None else judge.first
        if not judge.fault and abs(first - 0.5) > MOST_LEANING:
            yield (
                f"The judge {judge.name} leans to the order: {_percent(first)} of its "
                "decisions were for what stood first. Both orders were asked, so that this favours "
                "nobody."
            )
        if not judge.fault and (judge.people is None or judge.people.kappa is None):
            yield (
                f"The judge {judge.name} was not compared with people: rate answers in the app, "
                "then run `sizewise judge DIR`."
            )
    alpha = _alpha(test, [judge.name for judge in judges]) if len(judges) > 1 else math.nan
    if alpha < LEAST_ALPHA:
        yield f"The judges agree little with one another (Krippendorff's alpha {alpha:.2f})."


def _quality(
    name: str, rows: Sequence[tuple[str, Row]], people: JudgeAgreement | None
) -> JudgeQuality:
    pairs = [(key, points_of(row, name)) for key, row in rows]
    both = [(key, p) for key, p in pairs if decided(p[0]) and decided(p[1])]
    steady = ["a" if first == second else "b" for _, (first, second) in both]
    found = habits([row for _, row in rows], name) if rows else {}
    return JudgeQuality(
        name,
        win_rate(steady, [key for key, _ in both]) if both else None,
        found.get("first"),
        found.get("unread", 0.0),
        people,
    )


def _alpha(test: TestSet, names: Sequence[str]) -> float:
    rows = [row for arm in test.arms for m in arm.members for _, row in _rows(test, m)]
    table = [[verdict_of(both_orders(*points_of(row, name))) for row in rows] for name in names]
    return krippendorff_alpha(table).alpha if rows else math.nan


def _rows(test: TestSet, member: Member) -> Iterator[tuple[str, Row]]:
    """Yield the id of every compared example with what judges said of the answer to it."""
    if member.answers is None:
        return
    said = {name: v for name, v in member.answers.scores.items() if name.startswith(JUDGED)}
    for key, place in zip(test.ids, member.answers.positions(test.ids), strict=True):
        row = {name: float(values[place]) for name, values in said.items()}
        yield key, {name: value for name, value in row.items() if not math.isnan(value)}


def _names(member: Member) -> Iterator[tuple[str, str]]:
    if member.answers is None or not any(n.startswith(PREFIX) for n in member.answers.scores):
        return
    for node in judge_nodes(member.run.outcome.config):
        with suppress(ConfigError):  # a record that names none: there is no verdict by it
            yield from [(name, judge_key(node, name)) for name in judges_of(node.get("models"))]


def _places(members: Sequence[Member]) -> set:  # type: ignore[type-arg]
    directories = {member.run.directory for member in members}
    return directories | {directory.parent for directory in directories}


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
