"""Cosine of TF-IDF vectors, by scikit-learn, with weights fitted on the reference answers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sizewise.data.tokens.reasoning import answer_of
from sizewise.metrics.text import TextMetric

if TYPE_CHECKING:
    from sizewise.record.predictions import Prediction


def tfidf_cosines(
    texts: Sequence[str], others: Sequence[str], fitted_on: Sequence[str]
) -> list[float]:
    """Return the cosine of each text with its other; 0 where one has no known word.

    Lower-cased words of two or more letters, raw counts, smoothed inverse document frequencies
    from ``fitted_on``, unit length (scikit-learn's defaults, written out).
    """
    vectorizer = _vectorizer()
    try:
        vectorizer.fit(fitted_on)
    except ValueError:  # not one word in all of them
        return [0.0] * len(texts)
    rows, columns = vectorizer.transform(texts), vectorizer.transform(others)
    products = np.asarray(rows.multiply(columns).sum(axis=1)).ravel()
    return [float(value) for value in products]


class Tfidf(TextMetric):
    """TF-IDF cosine with the reference; its mean and standard deviation over the split.

    Where the base's answers to the same examples are known, ``base_cosine`` compares with those:
    base–reference, tuned–reference and base–tuned make the three ways.
    """

    name = "tfidf"

    def __init__(self) -> None:
        super().__init__()
        self._base: dict[str, str] = {}

    def set_base(self, base: Sequence[Prediction]) -> None:
        self._base = {p.id: answer_of(p.text) for p in base}

    def text_scores(self, predictions: Sequence[Prediction]) -> list[dict[str, float]]:
        """Score all answers; the weights come from the references of these predictions."""
        references = [p.reference for p in predictions]
        texts = [p.text for p in predictions]
        rows = [{"cosine": value} for value in tfidf_cosines(texts, references, references)]
        if any(p.id not in self._base for p in predictions):
            return rows
        answers = [self._base[p.id] for p in predictions]
        values = tfidf_cosines(texts, answers, references)
        return [row | {"base_cosine": value} for row, value in zip(rows, values, strict=True)]

    def aggregate(
        self, predictions: Sequence[Prediction], scores: Sequence[Mapping[str, float]]
    ) -> dict[str, float]:
        """Means, and the sample standard deviations (``_std``) of two or more examples."""
        spread = {
            f"{name}_std": statistics.stdev(row[name] for row in scores)
            for name in ("cosine", "base_cosine")
            if len(scores) > 1 and name in scores[0]
        }
        return super().aggregate(predictions, scores) | spread


def _vectorizer() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(
        lowercase=True,
        token_pattern=r"(?u)\b\w\w+\b",
        ngram_range=(1, 1),
        norm="l2",
        use_idf=True,
        smooth_idf=True,
        sublinear_tf=False,
    )
