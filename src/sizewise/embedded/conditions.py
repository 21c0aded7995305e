"""Conditions as patients describe them, read from the phrase files of this package."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import simple_icd_10_cm as catalogue

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
        """Text of the catalogue."""
        return str(catalogue.get_description(self.code))

    @property
    def chapter(self) -> str:
        """Title of the chapter of the catalogue, with its range of codes."""
        return chapter_title(self.code)

    @property
    def other_side(self) -> str:
        """The side that is not affected."""
        return "right" if self.side == "left" else "left"


def chapter_title(code: str) -> str:
    """Title of the chapter a code belongs to."""
    return str(catalogue.get_description(catalogue.get_ancestors(code)[-1]))


@lru_cache(maxsize=1)
def load_conditions() -> tuple[Condition, ...]:
    """All conditions, sorted by code."""
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
