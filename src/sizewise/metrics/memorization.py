"""How much of an answer stands word for word in the training answers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sizewise.data.tokens.reasoning import answer_of
from sizewise.metrics.reading.closed import words
from sizewise.metrics.text import NgramIndex, TextMetric

if TYPE_CHECKING:
    from sizewise.data.example import Example
    from sizewise.record.predictions import Prediction

log = logging.getLogger(__name__)


class Memorization(TextMetric):
    """Longest run of words shared with a training answer, and share of shared n-grams.

    The same figures of the reference answers (``reference_*``) say how much overlap is natural;
    those of the base stand in the base's own predictions. Without training answers there is no
    score; an empty answer shares nothing.
    """

    name = "memorization"
    higher_is_better = False

    def __init__(self, n: int = 5) -> None:
        super().__init__()
        self.n = n
        self._index: NgramIndex | None = None

    def set_context(self, train_examples: Sequence[Example]) -> None:
        self._index = NgramIndex([words(answer_of(e.answer)) for e in train_examples] or [[]])
        if not train_examples:
            log.warning("memorization: there are no training answers to compare with.")
            self._index = None

    def text_scores(self, predictions: Sequence[Prediction]) -> list[dict[str, float]]:
        if self._index is None:
            return [{} for _ in predictions]
        return [
            self._overlap(self._index, p.text, "")
            | self._overlap(self._index, p.reference, "reference_")
            for p in predictions
        ]

    def _overlap(self, index: NgramIndex, text: str, prefix: str) -> dict[str, float]:
        tokens = words(text)
        return {
            f"{prefix}longest": float(index.longest(tokens)),
            f"{prefix}shared_{self.n}grams": index.share(tokens, self.n),
        }
