"""Two findings in one dialogue, of which one is the patient's: what counts is how they are told.

A case holds two scenarios of different codes. Each of its dialogues has a twin: the same frame
with the two findings in each other's place, hence the same words and another code. Whatever
reads words without their order can have at most one of two twins right (contrast sets, Gardner
et al. 2020, https://aclanthology.org/2020.findings-emnlp.117).
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

from sizewise.embedded.phrasing import Condition


@dataclass(frozen=True)
class Scenario:
    """A finding: one condition told with one complaint and one detail."""

    condition: Condition
    complaint: int
    detail: int

    @property
    def key(self) -> str:
        """Name, unique among scenarios."""
        return f"{self.condition.code}/{self.complaint}/{self.detail}"


def scenarios_of(condition: Condition, details: int) -> list[Scenario]:
    """All complaints with each of the first ``details`` details."""
    complaints = range(len(condition.complaints))
    return [Scenario(condition, told, detail) for told in complaints for detail in range(details)]


@dataclass(frozen=True)
class Case:
    """Two scenarios that are told together, `twins` times each way round."""

    first: Scenario
    second: Scenario
    twins: int

    @property
    def key(self) -> str:
        """Name of the group of rows that must stay in one split."""
        return f"{self.first.key}+{self.second.key}"

    @property
    def codes(self) -> tuple[str, str]:
        """Codes of both scenarios; they differ."""
        return self.first.condition.code, self.second.condition.code

    @property
    def share_complaint(self) -> bool:
        """Whether one complaint introduces both findings."""
        return (
            self.first.condition.family == self.second.condition.family
            and self.first.complaint == self.second.complaint
        )


Unit = tuple[Scenario, int]

NEARNESS: tuple[Callable[[Unit], Hashable], ...] = (
    lambda unit: (unit[1], unit[0].condition.family, unit[0].complaint),
    lambda unit: (unit[1], unit[0].condition.family),
    lambda unit: unit[1],
    lambda unit: None,
)


def pair_up(units: Sequence[Unit], rng: random.Random) -> list[Case]:
    """Cases of scenarios with their numbers of rows, the nearest possible together.

    Nearest is: as many rows, of one family, with one complaint. As many rows on both sides
    means that how frequent a code is does not tell which of the two is meant.
    """
    cases: list[Case] = []
    left = list(units)
    for nearness in NEARNESS:
        buckets: dict[Hashable, list[Unit]] = defaultdict(list)
        for unit in left:
            buckets[nearness(unit)].append(unit)
        left = []
        for bucket in buckets.values():
            left += _pair_bucket(bucket, cases, rng)
    return cases


def _pair_bucket(bucket: list[Unit], cases: list[Case], rng: random.Random) -> list[Unit]:
    """Adds cases of different codes to `cases`; returns the units that found no partner."""
    by_code: dict[str, list[Unit]] = defaultdict(list)
    for unit in bucket:
        by_code[unit[0].condition.code].append(unit)
    while len(by_code) > 1:
        most = max(by_code, key=lambda code: len(by_code[code]))
        other = rng.choice([code for code in by_code if code != most])
        (first, rows), (second, others) = by_code[most].pop(), by_code[other].pop()
        cases.append(Case(first, second, max(rows, others)))
        by_code = {code: units for code, units in by_code.items() if units}
    return [unit for units in by_code.values() for unit in units]


@dataclass(frozen=True)
class Frame:
    """How two findings `{a}` and `{b}` are told in this order.

    `cue` is what tells them apart; `meant` is the place, "a" or "b", of the patient's own.
    In `text`, `{p}` is the patient and `{who}` a relative.
    """

    cue: str
    meant: str
    text: str


RELATIVES = ("sister", "brother", "mother", "father", "neighbour", "cousin")

LABELS = (
    ("person", "{p}", "The {who}"),
    ("person", "For me", "For my {who}"),
    ("time", "Today", "Long ago"),
    ("time", "Now", "Last year"),
    ("negation", "True", "Not true"),
    ("negation", "Yes", "No"),
    ("change of mind", "Rather", "I thought"),
    ("change of mind", "Final", "Crossed out"),
)


def _frames() -> Iterator[Frame]:
    """Two frames for each pair of labels, with the meant finding first and last."""
    for cue, meant, other in LABELS:
        yield Frame(cue, "a", f"{meant}: {{a}}\n{other}: {{b}}")
        yield Frame(cue, "b", f"{other}: {{a}}\n{meant}: {{b}}")
    for mine in ("It is the {n}.", "I have the {n}."):
        for number, meant in (("first", "a"), ("second", "b")):
            said = mine.format(n=number)
            yield Frame("order", meant, f"{{p}}: {said}\nFirst: {{a}}\nSecond: {{b}}")


FRAMES = tuple(_frames())
