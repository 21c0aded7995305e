"""Ratings on disk, one append-only file per rater, and what they say: win rates and agreement."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sizewise.errors import ConfigError, OutcomeError
from sizewise.files import append_durably, hash_text, parse_json
from sizewise.report.ratings.pairs import Matchup, Presented
from sizewise.statistics.agreement import Agreement, WinRate, krippendorff_alpha, win_rate
from sizewise.words import plural

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
    """The ratings of one rater, whose name has 1 to 60 characters, below a sweep or a run."""

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
        # Another window of the same rater may be writing: whatever stands there is left alone.
        append_durably(self.path, f"{line}\n", keep_torn=True)
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
            record = parse_json(line)
        except ValueError:
            continue
        try:
            found.append(Rating.from_json(record))
        except (TypeError, KeyError) as error:
            raise OutcomeError(f"{path}, line {number}, is no rating ({error}).") from error
    return found


@dataclass(frozen=True)
class MatchupSummary:
    """The ratings of one pair of models on one data set.

    ``a`` and ``b`` are what people call the models. ``ratings`` counts judgements (the last one of
    each rater on each pair), ``items`` different pairs. ``wins`` is the win rate of A, a tie as
    half a win; its interval takes several ratings of one pair for what they are. ``first``: how
    often the answer that stood first was preferred, ties left out (None where all are ties); far
    from a half, raters went by position.
    """

    a: str
    b: str
    dataset: str
    raters: tuple[str, ...]
    ratings: int
    items: int
    wins: WinRate
    agreement: Agreement
    first: WinRate | None

    @property
    def sentence(self) -> str:
        low, high = 100 * self.wins.interval.low, 100 * self.wins.interval.high
        text = (
            f"{self.a} was preferred to {self.b} in {100 * self.wins.rate:.0f} % of "
            f"{plural(self.ratings, 'blind rating')} of {plural(self.items, 'answer')} (95 % "
            f"interval {low:.0f}–{high:.0f} %; {plural(self.wins.ties, 'tie')}, each half a win), "
            f"by {plural(len(self.raters), 'rater')}."
        )
        if self.agreement.alpha == self.agreement.alpha:
            text += f" Krippendorff's alpha is {self.agreement.alpha:.2f}"
            return f"{text} over {plural(self.agreement.units, 'answer')} rated more than once."
        if self.agreement.units == 0:
            return f"{text} Agreement cannot be told: no answer was rated more than once."
        return f"{text} Agreement beyond chance cannot be told: all ratings are the same."


def ratings_summary(
    directory: Path | Iterable[Path], runs: Collection[str] | None = None
) -> list[MatchupSummary]:
    """Summarise all ratings kept in ``directory`` (or several), most judged matchup first.

    With ``runs`` (ids) only matchups of two models of these runs are summarised.

    Raises:
        OutcomeError: a file of ratings is damaged.
    """
    directories = [directory] if isinstance(directory, Path) else list(directory)
    paths = sorted({path for d in directories for path in (d / FOLDER).glob("*.jsonl")})
    last = {(r.a, r.b, r.dataset, r.rater, r.item): r for path in paths for r in read_ratings(path)}
    matchups: dict[tuple[str, str, str], list[Rating]] = {}
    for rating in last.values():
        if runs is None or {_run(rating.a), _run(rating.b)} <= set(runs):
            matchups.setdefault((rating.a, rating.b, rating.dataset), []).append(rating)
    found = [_summarise(ratings) for ratings in matchups.values()]
    return sorted(found, key=lambda s: (-s.ratings, s.a, s.b))


def _run(side: str) -> str:
    return side.rpartition("/")[0]


def _summarise(ratings: Sequence[Rating]) -> MatchupSummary:
    raters = sorted({r.rater for r in ratings})
    items = sorted({r.item for r in ratings})
    given = {(r.rater, r.item): r.outcome for r in ratings}
    table = [[given.get((rater, item)) for item in items] for rater in raters]
    decided = [r for r in ratings if r.outcome != "tie"]
    return MatchupSummary(
        a=ratings[0].labels[0],
        b=ratings[0].labels[1],
        dataset=ratings[0].dataset,
        raters=tuple(raters),
        ratings=len(ratings),
        items=len(items),
        wins=win_rate([r.outcome for r in ratings], [r.item for r in ratings]),
        agreement=krippendorff_alpha(table),
        first=win_rate([_position(r) for r in decided], [r.item for r in decided])
        if decided
        else None,
    )


def _position(rating: Rating) -> str:
    """``a`` where the answer that stood first was preferred."""
    return "a" if (rating.outcome == "b") == rating.swapped else "b"
