"""What all metrics on texts share: which text counts, and that empty answers are counted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sizewise.metrics.base import ExampleMetric
from sizewise.metrics.codes import strip_reasoning

if TYPE_CHECKING:
    from sizewise.evaluation.prediction import Prediction

_WORD = re.compile(r"\w+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


def words(text: str) -> list[str]:
    """Lower-cased runs of letters, digits and underscores, of any script."""
    return _WORD.findall(text.lower())


def sentences(text: str) -> list[str]:
    """Split after ``.``, ``!`` or ``?`` before white space, and at line breaks; no model needed."""
    return [part.strip() for part in _SENTENCE_END.split(text) if part.strip()]


class TextMetric(ExampleMetric):
    """A metric on answers as texts: reasoning is removed, an empty answer is counted.

    Subclasses define ``text_scores`` for answers that are already clean. The score ``empty`` is
    added to each: 1 where nothing was answered.
    """

    def text_scores(self, predictions: Sequence[Prediction]) -> list[dict[str, float]]:
        """Return the scores of predictions whose ``text`` has no reasoning any more."""
        raise NotImplementedError(f"{type(self).__name__} has to define text_scores().")

    def score(self, prediction: Prediction) -> dict[str, float]:
        """Score one prediction."""
        return self.score_batch([prediction])[0]

    def score_batch(self, predictions: Sequence[Prediction]) -> list[dict[str, float]]:
        """Score many predictions at once."""
        clean = self.cleaned(predictions)
        scores = self.text_scores(clean) if clean else []
        return [
            row | {"empty": float(not prediction.text)}
            for row, prediction in zip(scores, clean, strict=True)
        ]

    def cleaned(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """Return predictions whose ``text`` has no reasoning any more."""
        return [replace(p, text=strip_reasoning(p.text).strip()) for p in predictions]
