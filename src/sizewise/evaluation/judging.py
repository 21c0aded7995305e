"""Pairs of answers as a judge reads them, in both orders, and what it says of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sizewise.data.example import Example, Message
from sizewise.data.tokens.reasoning import answer_of
from sizewise.metrics.reading.judged import EVEN, FIRST, LOST, SECOND, UNREAD, WON, judged_key
from sizewise.record.predictions import Prediction

CHOICES = ("A", "B", "C")
NO_WORDS = "(no answer)"
_BRACKETED = re.compile(r"\[\[\s*([ABC])\s*\]\]")
_LAST_LINE = re.compile(
    r"\W*(?:(?:the )?(?:final |better )?(?:answer|choice|verdict)\b\W*(?:is\b)?\W*)?"
    r"(?:(?P<letter>[ABCabc])|(?P<tie>tie))\b\W*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Duel:
    """An answer and its opponent to one prompt; ``id`` is that of the example."""

    id: str
    prompt: str
    answer: str
    opponent: str

    @property
    def same(self) -> bool:
        """Whether there is nothing to choose between."""
        return self.answer.strip() == self.opponent.strip()


@dataclass(frozen=True)
class Asked:
    """What a judge is asked of one duel: the answer first, and the answer second."""

    duel: Duel
    first: Example
    second: Example


Render = Callable[[str, str, str], str]


def ask_both_orders(duels: Sequence[Duel], render: Render) -> list[Asked]:
    """Write the two questions of every duel whose answers differ.

    ``render`` takes the prompt, the first and the second answer (``Judge.render``).
    """

    def question(duel: Duel, first: str, second: str) -> Example:
        text = render(duel.prompt, first.strip() or NO_WORDS, second.strip() or NO_WORDS)
        return Example((Message("user", text),), CHOICES[0], duel.id)

    return [
        Asked(
            duel,
            question(duel, duel.answer, duel.opponent),
            question(duel, duel.opponent, duel.answer),
        )
        for duel in duels
        if not duel.same
    ]


def read_choice(row: Prediction) -> str | None:
    """Return what a judge chose: its likeliest answer where that was measured, else as it says.

    Of a text ``[[A]]`` counts, else a last line that holds nothing but the choice.
    """
    if row.candidate is not None:
        return row.candidate
    text = answer_of(row.text).strip()
    if found := _BRACKETED.findall(text):
        return str(found[-1])
    last = _LAST_LINE.fullmatch(text.rpartition("\n")[2])
    if last is None:
        return None
    return CHOICES[2] if last["tie"] else last["letter"].upper()


def said_of(asked: Sequence[Asked], rows: Mapping[str, Prediction], judge: str) -> dict[
    str, dict[str, float]
]:  # fmt: skip
    """Return what a judge said of every duel it was asked, as scores by the example's id.

    ``rows``: its answers by the id of the question; one that is missing was too long to be read.
    """
    found = {}
    for item in asked:
        points = {
            FIRST: _points(rows.get(item.first.id), CHOICES[0]),
            SECOND: _points(rows.get(item.second.id), CHOICES[1]),
        }
        known = {place: value for place, value in points.items() if value is not None}
        scores = {**known, UNREAD: float(len(points) - len(known))}
        found[item.duel.id] = {judged_key(judge, place): v for place, v in scores.items()}
    return found


def _points(row: Prediction | None, own: str) -> float | None:
    """Points of the answer that stood under the letter ``own``."""
    choice = None if row is None else read_choice(row)
    if choice is None:
        return None
    return EVEN if choice == CHOICES[2] else WON if choice == own else LOST
