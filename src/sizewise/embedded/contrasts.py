"""Two findings in one dialogue, of which one is the patient's: what counts is how they are told.

A case holds two scenarios of different codes. Each of its dialogues has a twin: the same frame
with the two findings in each other's place, hence the same words and another code. Whatever
reads words without their order can have at most one of two twins right (contrast sets, Gardner
et al. 2020, https://aclanthology.org/2020.findings-emnlp.117).
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
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
    """

    cue: str
    meant: str
    text: str


RELATIVES = ("sister", "brother", "mother", "father", "neighbour", "cousin")

TASK_FRAMES = tuple(
    Frame(cue, meant, text)
    for cue, meant, text in (
        ("person", "b", "Doctor: What does your {who} have?\nPatient: {a}\nDoctor: And you?\nPatient: {b}"),
        ("person", "a", "Doctor: What do you have?\nPatient: {a}\nDoctor: And your {who}?\nPatient: {b}"),
        ("person", "b", "Doctor: Go on.\nPatient: {a} That is my {who}. With me it goes like this. {b}"),
        ("person", "a", "Doctor: Go on.\nPatient: {a} That is me. With my {who} it goes like this. {b}"),
        ("time", "b", "Doctor: What was it last year?\nPatient: {a}\nDoctor: And what is it today?\nPatient: {b}"),
        ("time", "a", "Doctor: What is it today?\nPatient: {a}\nDoctor: And what was it last year?\nPatient: {b}"),
        ("time", "b", "Doctor: Go on.\nPatient: {a} That was long ago and healed. Now it is this. {b}"),
        ("time", "a", "Doctor: Go on.\nPatient: {a} That is now. Long ago it was this, it healed. {b}"),
        ("negation", "a", "Doctor: Is this true? {a}\nPatient: Yes.\nDoctor: And this? {b}\nPatient: No."),
        ("negation", "b", "Doctor: Is this true? {a}\nPatient: No.\nDoctor: And this? {b}\nPatient: Yes."),
        ("negation", "b", "Doctor: The letter says this. {a}\nPatient: That is not so. {b}"),
        ("negation", "a", "Doctor: Go on.\nPatient: {a}\nDoctor: The letter says this. {b}\nPatient: That is not so."),
        ("change of mind", "b", "Doctor: Go on.\nPatient: {a} No, wait, I mixed that up. {b}"),
        ("change of mind", "a", "Doctor: I thought of this. {a} No, rather of this. {b}\nPatient: You were right at first."),
        ("change of mind", "b", "Doctor: I thought of this. {a} The tests are against it. So I think of this. {b}"),
        ("change of mind", "a", "Doctor: So I think of this. {a} I thought of this before. {b} The tests are against it."),
        ("order", "a", "Doctor: There are two notes. {a} Then the other. {b}\nPatient: The first is mine."),
        ("order", "b", "Doctor: There are two notes. {a} Then the other. {b}\nPatient: The second is mine."),
        ("order", "a", "Doctor: Go on.\nPatient: {a} {b}\nDoctor: Both?\nPatient: Only what I said first."),
        ("order", "b", "Doctor: Go on.\nPatient: {a} {b}\nDoctor: Both?\nPatient: Only what I said last."),
    )
)

GENERAL_FRAMES = tuple(
    Frame(cue, meant, text)
    for cue, meant, text in (
        ("person", "b", "{q}: How is your {who}?\n{p}: {a}\n{q}: How are you yourself?\n{p}: {b}"),
        ("person", "a", "{q}: How are you yourself?\n{p}: {a}\n{q}: How is your {who}?\n{p}: {b}"),
        ("person", "b", "{p}: {a} So it is for my {who}. For me it is like this. {b}"),
        ("person", "a", "{p}: {a} So it is for me. For my {who} it is like this. {b}"),
        ("time", "b", "{q}: What was wrong years ago?\n{p}: {a}\n{q}: What is wrong now?\n{p}: {b}"),
        ("time", "a", "{q}: What is wrong now?\n{p}: {a}\n{q}: What was wrong years ago?\n{p}: {b}"),
        ("time", "b", "{p}: {a} It was so once and is over. Today it is different. {b}"),
        ("time", "a", "{p}: {a} It is so today. Once it was different, that is over. {b}"),
        ("negation", "a", "{q}: Do you have this? {a}\n{p}: Yes, I do.\n{q}: Or this? {b}\n{p}: No, I do not."),
        ("negation", "b", "{q}: Do you have this? {a}\n{p}: No, I do not.\n{q}: Or this? {b}\n{p}: Yes, I do."),
        ("negation", "b", "{p}: {a} They wrote that, but it is not true. True is this. {b}"),
        ("negation", "a", "{p}: {a} That is true. They wrote this, but it is not true. {b}"),
        ("change of mind", "b", "{p}: {a} Sorry, I said that wrong. {b}"),
        ("change of mind", "a", "{q}: Maybe it is this. {a} Or maybe this. {b}\n{p}: It is what you said before."),
        ("change of mind", "b", "{q}: We suspected this. {a} The result is against it and points to this. {b}"),
        ("change of mind", "a", "{q}: The result points to this. {a} We suspected this. {b} The result is against it."),
        ("order", "a", "{p}: This is one. {a} This is two. {b}\n{q}: Which?\n{p}: I have the first."),
        ("order", "b", "{p}: This is one. {a} This is two. {b}\n{q}: Which?\n{p}: I have the second."),
        ("order", "a", "{p}: {a} {b} Forget the last thing."),
        ("order", "b", "{p}: {a} {b} Forget the first thing."),
    )
)
