"""How long answers are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sizewise.metrics.reading.closed import words
from sizewise.metrics.text import TextMetric

if TYPE_CHECKING:
    from sizewise.record.predictions import Prediction


class Length(TextMetric):
    """Words and characters of the answer, and its words over those of the reference."""

    name = "length"
    higher_is_better = None

    def text_scores(self, predictions: Sequence[Prediction]) -> list[dict[str, float]]:
        """Score each answer; ``ratio`` is left out where the reference has no word."""
        return [_lengths(p.text, p.reference) for p in predictions]


def _lengths(text: str, reference: str) -> dict[str, float]:
    own, other = len(words(text)), len(words(reference))
    scores = {"words": float(own), "characters": float(len(text))}
    return scores | ({"ratio": own / other} if other else {})
