"""The order in which a rater sees pairs, and which answer stands first: random but repeatable."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sizewise.app.ratings.pairs import AnswerPair, Matchup


@dataclass(frozen=True)
class Presented:
    """A pair as it is shown: ``swapped`` says that B's answer stands first."""

    pair: AnswerPair
    swapped: bool

    @property
    def first(self) -> str:
        """The answer that is shown first (left, or above on a phone)."""
        return self.pair.b if self.swapped else self.pair.a

    @property
    def second(self) -> str:
        """The answer that is shown second."""
        return self.pair.a if self.swapped else self.pair.b

    def outcome(self, choice: str) -> str:
        """Translate ``first``, ``second`` or ``tie`` into ``a``, ``b`` or ``tie``."""
        if choice == "tie":
            return choice
        return "b" if (choice == "first") == self.swapped else "a"


def present(matchup: Matchup, rater: str) -> list[Presented]:
    """Return the pairs of a matchup in the order of one rater.

    Half of the pairs (rounded by chance) show B first, so that a preference for the first answer
    favours nobody. The same rater always gets the same order, whenever they come back.
    """
    digest = hashlib.sha256(f"{matchup.name}\x1f{rater}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    count = len(matchup.pairs)
    order = rng.permutation(count)
    swapped = rng.permutation(np.arange(count) + rng.integers(2)) % 2 == 1
    return [
        Presented(matchup.pairs[int(place)], bool(flip))
        for place, flip in zip(order, swapped, strict=True)
    ]


def next_unrated(presented: Sequence[Presented], rated: set[str]) -> Presented | None:
    """Return the first pair whose key is not in ``rated``; None when all are."""
    return next((p for p in presented if p.pair.key not in rated), None)
