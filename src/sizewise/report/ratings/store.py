"""Ratings on disk: one append-only file per rater, one JSON line per rating."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sizewise.errors import ConfigError, OutcomeError
from sizewise.files import hash_text
from sizewise.report.ratings.pairs import Matchup, Presented

FOLDER = "ratings"
CHOICES = ("first", "second", "tie")


@dataclass(frozen=True)
class Rating:
    """One judgement of one pair.

    ``a`` and ``b`` are names of models (see ``pairs.Side``), ``item`` is the pair's key,
    ``example`` the id of the test example, ``outcome`` ``a``, ``b`` or ``tie``; ``swapped`` says
    whether B's answer was shown first, ``time`` is in ISO 8601 (UTC).
    """

    rater: str
    a: str
    b: str
    labels: tuple[str, str]
    dataset: str
    item: str
    example: str
    outcome: str
    swapped: bool
    time: str
    comment: str = ""

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Rating:
        """Build from a stored line; raises TypeError or KeyError where it is none."""
        return cls(**{**record, "labels": tuple(record["labels"])})


class RatingStore:
    """The ratings of one rater below ``directory`` (a sweep or a run).

    Raises:
        ConfigError: the rater's name is empty or longer than 60 characters.
    """

    def __init__(self, directory: Path, rater: str) -> None:
        self.rater = rater.strip()
        if not 0 < len(self.rater) <= 60:
            raise ConfigError("A rater needs a name of at most 60 characters.")
        self.path = directory / FOLDER / f"{file_name(self.rater)}.jsonl"

    def read(self) -> list[Rating]:
        return read_ratings(self.path) if self.path.is_file() else []

    def rated(self, matchup: Matchup) -> set[str]:
        return {r.item for r in self.read() if (r.a, r.b) == (matchup.a.name, matchup.b.name)}

    def add(self, matchup: Matchup, shown: Presented, choice: str, comment: str = "") -> Rating:
        """Store a judgement (``first``, ``second`` or ``tie``); it is on the disk on return."""
        if choice not in CHOICES:
            raise ConfigError(f"choice={choice!r} is none of {', '.join(CHOICES)}.")
        rating = Rating(
            rater=self.rater,
            a=matchup.a.name,
            b=matchup.b.name,
            labels=(matchup.a.label, matchup.b.label),
            dataset=matchup.a.dataset,
            item=shown.pair.key,
            example=shown.pair.id,
            outcome=shown.outcome(choice),
            swapped=shown.swapped,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            comment=comment.strip(),
        )
        line = json.dumps(asdict(rating), ensure_ascii=False)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as handle:
            handle.seek(0, os.SEEK_END)
            if handle.tell():
                handle.seek(-1, os.SEEK_END)
                # A line torn by a crash stays alone on its line and is skipped when read.
                line = line if handle.read(1) == b"\n" else f"\n{line}"
            handle.write(f"{line}\n".encode())
            handle.flush()
            os.fsync(handle.fileno())
        return rating


def file_name(rater: str) -> str:
    """File name of a rater: readable, safe, and different for different names."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", rater).strip("-").lower()[:40] or "rater"
    return f"{plain}-{hash_text(rater, 6)}"


def read_ratings(path: Path) -> list[Rating]:
    """Read one rater's file, a torn line left out; OutcomeError if a whole line is no rating."""
    found: list[Rating] = []
    for number, line in enumerate(path.read_bytes().decode(errors="replace").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            continue
        try:
            found.append(Rating.from_json(record))
        except (TypeError, KeyError) as error:
            raise OutcomeError(f"{path}, line {number}, is no rating ({error}).") from error
    return found
