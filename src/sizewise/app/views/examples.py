"""Single test examples: prompt, reference, and the answers of base and tuned model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sizewise.evaluation.prediction import Prediction
from sizewise.evaluation.predictions import read_predictions
from sizewise.report.candidates import Candidate, TestSet

KINDS = ("all", "tuned worse than base", "tuned better than base", "equal")


@dataclass(frozen=True)
class Row:
    """One example with the answer of a model and, where there is one, that of its base."""

    own: Prediction
    base: Prediction | None

    def gain(self, primary: str, sign: float) -> float | None:
        """How much better than the base's the answer is; None where that cannot be told."""
        if self.base is None or primary not in self.own.scores or primary not in self.base.scores:
            return None
        return sign * (self.own.scores[primary] - self.base.scores[primary])


def example_rows(test: TestSet, candidate: Candidate) -> list[Row]:
    """Read the answers of a candidate (its first seed) beside those of its base."""
    own = _read(candidate)
    base = test.zero_shot_of(candidate) if candidate.tuned else None
    beside = {p.id: p for p in _read(base)} if base is not None else {}
    return [Row(p, beside.get(p.id)) for p in own]


def select(rows: Sequence[Row], test: TestSet, kind: str, text: str = "") -> list[Row]:
    """Filter by how tuned and base compare, and by words in prompt, reference or answer."""
    needle = text.casefold().strip()
    found = []
    for row in rows:
        gain = row.gain(test.primary, test.sign)
        fits = {
            KINDS[1]: gain is not None and gain < 0,
            KINDS[2]: gain is not None and gain > 0,
            KINDS[3]: gain == 0,
        }.get(kind, True)
        own = row.own
        if fits and (
            not needle or needle in f"{own.prompt}\n{own.reference}\n{own.text}".casefold()
        ):
            found.append(row)
    return found


def _read(candidate: Candidate) -> list[Prediction]:
    answers = candidate.first.answers
    return read_predictions(answers.path) if answers is not None else []
