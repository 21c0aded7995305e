"""What patients and doctors say: conditions from the phrase files, sentences around them."""

from __future__ import annotations

import random
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from sizewise.catalogue import load_entries

SIDES = ("right", "left")


@dataclass(frozen=True)
class Condition:
    """One ICD-10-CM code with the phrases that describe it.

    `complaints` fit every condition of the family; `details` tell its members apart.
    `course` is "acute", "chronic" or "any" and decides which durations may be added.
    """

    code: str
    family: str
    complaints: tuple[str, ...]
    details: tuple[str, ...]
    course: str
    side: str | None

    @property
    def description(self) -> str:
        return load_entries("icd10cm")[self.code.replace(".", "")].description

    @property
    def chapter(self) -> str:
        """Title of the chapter of the catalogue, with its range of codes."""
        return chapter_title(self.code)


def chapter_title(code: str) -> str:
    return load_entries("icd10cm")[code.replace(".", "")].chapter


@lru_cache(maxsize=1)
def load_conditions() -> tuple[Condition, ...]:
    found: list[Condition] = []
    for entry in files("sizewise.embedded").joinpath("phrases").iterdir():
        if entry.name.endswith(".toml"):
            for family in tomllib.loads(entry.read_text(encoding="utf-8"))["family"]:
                for member in family["member"]:
                    found.extend(_expand(family, member))
    return tuple(sorted(found, key=lambda condition: condition.code))


def _expand(family: dict[str, Any], member: dict[str, Any]) -> list[Condition]:
    """One condition, or one per side where the code has a digit for the side."""
    if "{s}" not in member["code"]:
        return [_condition(family, member, member["code"], None)]
    digits = member.get("sides", ["1", "2"])
    return [
        _condition(family, member, member["code"].replace("{s}", digit), side)
        for digit, side in zip(digits, SIDES, strict=True)
    ]


def _condition(
    family: dict[str, Any], member: dict[str, Any], code: str, side: str | None
) -> Condition:
    words = {
        "side": side or "",
        "other": "left" if side == "right" else "right",
        "part": member.get("part", ""),
    }
    details = member.get("details", family.get("details", []))
    return Condition(
        code=code,
        family=family["name"],
        complaints=tuple(family["complaints"]),
        details=tuple(detail.format(**words) for detail in details),
        course=member.get("course", family.get("course", "any")),
        side=side,
    )


DURATIONS = {
    "acute": ("since yesterday", "for two days", "for three days now", "since last weekend"),
    "chronic": ("for years", "for more than a year", "for many months", "as long as I can think"),
    "any": ("for a while", "lately", "these days", "again"),
}

TASK_OPENERS = (
    "Good morning, what brings you in?",
    "Hello, how can I help you today?",
    "Please sit down. What is the trouble?",
    "What made you come to see me?",
    "Hi, tell me what is going on.",
    "So, what can I do for you?",
)
TASK_CLOSERS = (
    "Thank you, let me examine you.",
    "All right, I will have a look.",
    "Fine, we will take care of that.",
)
HELLOS = ("Hi doctor.", "Thanks for seeing me.", "Good morning.")
GREETINGS = (*HELLOS, "Well,", "Honestly,", "")
VAGUE = (
    "I can not describe it any better.",
    "Hard to say, you are the expert.",
    "It is all in my letter, please read it.",
)
SEVERITIES = (
    "It is about a six out of ten.",
    "It is bearable.",
    "It is really bad today.",
    "It gets in the way at work.",
)
NEGATIONS = ("No fever.", "No chest pain.", "No rash.", "I have not travelled.", "No accident.")


def sentence(text: str) -> str:
    text = text.strip()
    closed = text if text[-1] in ".?!" else text + "."
    return closed[0].upper() + closed[1:]


def with_typos(text: str, rate: float, rng: random.Random) -> str:
    """Swaps two neighbouring letters inside a longer word with probability `rate` per word."""
    return " ".join(_swap(word, rng) if rng.random() < rate else word for word in text.split(" "))


def _swap(word: str, rng: random.Random) -> str:
    if len(word) < 5 or not word.isalpha():
        return word
    at = rng.randrange(1, len(word) - 2)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
