"""Cosine of TF-IDF vectors, by scikit-learn, with weights fitted on the reference answers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import regex

from sizewise.data.tokens.reasoning import answer_of
from sizewise.metrics.reading.closed import plain, words
from sizewise.metrics.text import TextMetric

if TYPE_CHECKING:
    from sizewise.record.predictions import Prediction

_SCRIPTS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_UNSPACED = regex.compile(rf"[{_SCRIPTS}]\p{{M}}*|[^{_SCRIPTS}]+")


def tfidf_cosines(
    texts: Sequence[str], others: Sequence[str], fitted_on: Sequence[str]
) -> list[float]:
    """Return the cosine of each text with its other, 1 where they are the same; 0 without a word.

    Words and numbers without case (``words_of``), raw counts, smoothed inverse document frequencies
    from ``fitted_on`` (scikit-learn's formula), unit length. A word that none of these texts has
    counts as the rarest: what is said beyond the reference costs as much as what is missing.
    """
    from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

    counts = CountVectorizer(analyzer=words_of)
    try:
        counts.fit([*texts, *others, *fitted_on])
    except ValueError:  # not one word in all of them
        cosines = np.zeros(len(texts))
    else:
        weights = TfidfTransformer().fit(counts.transform(fitted_on))
        rows, columns = (weights.transform(counts.transform(each)) for each in (texts, others))
        cosines = np.asarray(rows.multiply(columns).sum(axis=1)).ravel()
    same = (bool(t.strip()) and plain(t) == plain(o) for t, o in zip(texts, others, strict=True))
    return [1.0 if equal else float(c) for equal, c in zip(same, cosines, strict=True)]


def words_of(text: str) -> list[str]:
    """Return a text's words and numbers; of scripts that leave no spaces each character."""
    return [part for word in words(text) for part in _UNSPACED.findall(word)]


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
