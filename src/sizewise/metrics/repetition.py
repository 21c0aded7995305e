"""How much an answer, and all answers together, repeat themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sizewise.metrics.reading.closed import words
from sizewise.metrics.text import TextMetric, distinct, longest_repeat, ngrams

if TYPE_CHECKING:
    from sizewise.record.predictions import Prediction


def repetition_scores(text: str, n: int = 4) -> dict[str, float]:
    """distinct-1/2/3, share of repeated n-grams, longest repeated run in words."""
    tokens = words(text)
    scores = {f"distinct_{k}": distinct(tokens, k) for k in (1, 2, 3)}
    scores[f"repeated_{n}grams"] = 1.0 - distinct(tokens, n)
    scores["longest_repeat"] = float(longest_repeat(tokens))
    return scores


class Repetition(TextMetric):
    """Repetition of words and ``n``-grams within answers, and distinct n-grams over all of them."""

    name = "repetition"
    higher_is_better = False

    def __init__(self, n: int = 4) -> None:
        super().__init__()
        self.n = n

    def text_scores(self, predictions: Sequence[Prediction]) -> list[dict[str, float]]:
        return [repetition_scores(p.text, self.n) for p in predictions]

    def aggregate(
        self, predictions: Sequence[Prediction], scores: Sequence[Mapping[str, float]]
    ) -> dict[str, float]:
        """Means, and ``corpus_distinct_2``: low where all answers are alike."""
        answers = (words(p.text) for p in self.cleaned(predictions))
        grams = [gram for answer in answers for gram in ngrams(answer, 2)]
        share = len(set(grams)) / len(grams) if grams else 1.0
        return super().aggregate(predictions, scores) | {"corpus_distinct_2": share}
