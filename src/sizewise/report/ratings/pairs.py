"""Pairs of answers to the same prompt, and the order in which a rater sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sizewise.errors import OutcomeError
from sizewise.files import hash_text
from sizewise.record.predictions import read_predictions
from sizewise.report.comparison.runs import Run


@dataclass(frozen=True)
class Side:
    """One model whose answers are rated: a run, its base or its tuned model.

    ``name`` is the stable one in ratings, ``<run id>/base`` or ``<run id>/tuned``, ``label`` what
    people call it after the rating, ``path`` its predictions.
    """

    name: str
    label: str
    path: Path
    dataset: str


@dataclass(frozen=True)
class AnswerPair:
    """One prompt with the answers of A and B; ``key`` is the hash of all three texts and the id."""

    id: str
    prompt: str
    a: str
    b: str

    @property
    def key(self) -> str:
        """Hash (16 hex digits) that no longer fits when an answer was generated anew."""
        return hash_text("\x1f".join((self.id, self.prompt, self.a, self.b)), 16)


@dataclass(frozen=True)
class Matchup:
    """What one comparison of A and B consists of.

    ``pairs`` are the prompts to rate, the same for every rater (else agreement could not be
    measured); those with equal answers are not among them, for nobody needs to rate them.
    """

    a: Side
    b: Side
    pairs: tuple[AnswerPair, ...]

    @property
    def name(self) -> str:
        return f"{self.a.name} vs {self.b.name} on {self.a.dataset}"


def sides_of(run: Run, label: str = "") -> list[Side]:
    """Return the models of a run with stored answers, tuned before base.

    ``label``: what people call the run.
    """
    found: list[Side] = []
    outcome = run.outcome
    trained = outcome.tuned is not None
    for kind, evaluations in (("tuned", outcome.tuned or {}), ("base", outcome.base)):
        name = label or run.directory.name
        said = f"{name} · {kind}" if trained else name
        for entry in evaluations.values():
            path = run.directory / entry.predictions.path
            found.append(Side(f"{outcome.run_id}/{kind}", said, path, entry.dataset))
    return found


def make_matchup(a: Side, b: Side, count: int = 30, seed: int = 0) -> Matchup:
    """Pair the answers of two models to the same prompts and draw at most ``count`` to rate.

    Raises:
        OutcomeError: the models have no prompt in common, or all their answers are equal.
    """
    # One order, so that A against B and B against A are the same matchup; tuned models first.
    a, b = sorted((a, b), key=lambda side: (side.name.endswith("/base"), side.name))
    answers_a, answers_b = ({p.id: p for p in read_predictions(side.path)} for side in (a, b))
    common = [key for key in answers_a if key in answers_b]
    if not common:
        raise OutcomeError(f"{a.label} and {b.label} answered no prompt in common.")
    both = [(answers_a[key], answers_b[key]) for key in common]
    every = [AnswerPair(p.id, p.prompt, p.text.strip(), q.text.strip()) for p, q in both]
    different = [pair for pair in every if pair.a != pair.b]
    if not different:
        raise OutcomeError(f"{a.label} and {b.label} gave the same answer to every prompt.")
    order = np.random.default_rng(seed).permutation(len(different))[:count]
    chosen = tuple(different[int(place)] for place in order)
    return Matchup(a, b, chosen)


@dataclass(frozen=True)
class Presented:
    """A pair as it is shown: ``swapped`` says that B's answer stands first."""

    pair: AnswerPair
    swapped: bool

    @property
    def first(self) -> str:
        return self.pair.b if self.swapped else self.pair.a

    @property
    def second(self) -> str:
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
    rng = np.random.default_rng(int(hash_text(f"{matchup.name}\x1f{rater}", 16), 16))
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
