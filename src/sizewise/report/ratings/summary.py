"""What ratings say: win rates with intervals, and how far raters agree."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sizewise.report.ratings.store import FOLDER, Rating, read_ratings
from sizewise.report.words import plural
from sizewise.statistics.agreement import Agreement, WinRate, krippendorff_alpha, win_rate


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
