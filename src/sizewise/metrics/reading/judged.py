"""What judges said of one answer, in both orders, as points; reports count them without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sizewise.statistics.agreement import TIE

JUDGED = "judged/"
FIRST, SECOND, UNREAD = "first", "second", "unread"
WON, EVEN, LOST = 1.0, 0.5, 0.0


def judged_key(judge: str, place: str) -> str:
    """Name the points of an answer that stood in ``place`` (``first`` or ``second``)."""
    return f"{JUDGED}{judge}/{place}"


def points_of(scores: Mapping[str, float], judge: str) -> tuple[float | None, float | None]:
    """Return the points of an answer when it stood first and when it stood second.

    1: it was preferred, 0: its opponent was, 0.5: a tie. None: the judge's answer could not be
    read, or it was not asked because both answers are the same.
    """
    return scores.get(judged_key(judge, FIRST)), scores.get(judged_key(judge, SECOND))


def both_orders(first: float | None, second: float | None) -> float:
    """Return the points of an answer over both orders; one that was not read is a tie.

    A judge that goes by the order alone gives every answer a half: what it prefers first it
    prefers against itself second.
    """
    return ((EVEN if first is None else first) + (EVEN if second is None else second)) / 2


def verdict_of(points: float) -> str:
    """Return who won over both orders: ``a`` (the answer), ``b`` (the opponent) or ``tie``."""
    return "a" if points > EVEN else "b" if points < EVEN else TIE


def habits(rows: Sequence[Mapping[str, float]], judge: str) -> dict[str, float]:
    """Return a judge's win rate and what it owes to the order (see ``Judge.aggregate``).

    Args:
        rows: the scores of every prediction.
        judge: its name.
    """
    points = [points_of(row, judge) for row in rows]
    both = [(first, second) for first, second in points if decided(first) and decided(second)]
    alone = [p for first, second in points for p in (first, _turned(second)) if decided(p)]
    unread = [row[key] for row in rows if (key := judged_key(judge, UNREAD)) in row]
    shares = {
        "first": (sum(p == WON for p in alone), len(alone)),
        "flipped": (sum(first != second for first, second in both), len(both)),
        "unread": (sum(unread), 2 * len(unread)),
    }
    wins = sum(both_orders(*pair) for pair in points) / len(points)
    return {"win": wins, **{n: part / whole for n, (part, whole) in shares.items() if whole}}


def decided(points: float | None) -> bool:
    """Whether a judge preferred one of the two."""
    return points is not None and points != EVEN


def _turned(points: float | None) -> float | None:
    return None if points is None else 1 - points
