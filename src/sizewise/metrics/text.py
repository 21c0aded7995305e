"""What metrics on texts share: which text counts, empty answers, and sequences of words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sizewise.data.tokens.reasoning import answer_of
from sizewise.metrics.base import ExampleMetric

if TYPE_CHECKING:
    from sizewise.record.predictions import Prediction


_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


def sentences(text: str) -> list[str]:
    """Split after ``.``, ``!`` or ``?`` before white space, and at line breaks; no model needed."""
    return [part.strip() for part in _SENTENCE_END.split(text) if part.strip()]


class TextMetric(ExampleMetric):
    """A metric on answers as texts: reasoning is removed, an empty answer is counted.

    Subclasses define ``text_scores`` for answers and references that are already clean. The score
    ``empty`` is added to each: 1 where nothing was answered.
    """

    def text_scores(self, predictions: Sequence[Prediction]) -> list[dict[str, float]]:
        """Return the scores of predictions without reasoning in ``text`` and ``reference``."""
        raise NotImplementedError(f"{type(self).__name__} has to define text_scores().")

    def score(self, prediction: Prediction) -> dict[str, float]:
        return self.score_batch([prediction])[0]

    def score_batch(self, predictions: Sequence[Prediction]) -> list[dict[str, float]]:
        clean = self.cleaned(predictions)
        scores = self.text_scores(clean) if clean else []
        return [
            row | {"empty": float(not prediction.text)}
            for row, prediction in zip(scores, clean, strict=True)
        ]

    def cleaned(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """Return predictions without reasoning in ``text`` and ``reference``."""
        return [
            replace(p, text=answer_of(p.text), reference=answer_of(p.reference))
            for p in predictions
        ]


Hashes = NDArray[np.uint64]
_SEED = 20_240_229


def ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def distinct(tokens: Sequence[str], n: int) -> float:
    """Distinct n-grams over all n-grams (Li et al. 2016); 1 where there is none."""
    grams = ngrams(tokens, n)
    return len(set(grams)) / len(grams) if grams else 1.0


def longest_repeat(tokens: Sequence[str]) -> int:
    """Length of the longest run of tokens that occurs at two positions (they may overlap)."""
    low, high = 0, max(len(tokens) - 1, 0)
    while low < high:  # a repeated run contains a repeated run of every shorter length
        middle = (low + high + 1) // 2
        grams = ngrams(tokens, middle)
        low, high = (middle, high) if len(set(grams)) < len(grams) else (low, middle - 1)
    return low


class NgramIndex:
    """Which runs of words occur in a collection of texts, for runs of any length.

    Runs are known by a 64-bit polynomial hash over random values of the words (Karp and Rabin
    1987), kept as one sorted array per length: 8 bytes a word, and no loop over words. A run never
    crosses from one text into the next.
    """

    def __init__(self, documents: Sequence[Sequence[str]]) -> None:
        rng = np.random.default_rng(_SEED)
        vocabulary = sorted({word for document in documents for word in document})
        values = rng.integers(1, 2**63, len(vocabulary), dtype=np.uint64)
        self._values = dict(zip(vocabulary, values, strict=True))
        self._base = int(rng.integers(1, 2**62)) * 2 + 1
        self._prefixes = [self._prefix(document) for document in documents]
        self.longest_document = max((len(document) for document in documents), default=0)
        self._known = lru_cache(maxsize=64)(self._hashes_of_length)

    def share(self, tokens: Sequence[str], n: int) -> float:
        """Share of the n-grams of ``tokens`` that occur in the collection; 0 if there are none."""
        found = self._found(self._prefix(tokens), n)
        return float(found.mean()) if found.size else 0.0

    def longest(self, tokens: Sequence[str]) -> int:
        """Length of the longest run of ``tokens`` that occurs in the collection."""
        prefix = self._prefix(tokens)
        low, high = 0, 1
        limit = min(len(tokens), self.longest_document)
        while high <= limit and self._found(prefix, high).any():
            low, high = high, high * 2
        high = min(high - 1, limit)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._found(prefix, middle).any() else (low, middle - 1)
        return low

    def _found(self, prefix: Hashes, n: int) -> NDArray[np.bool_]:
        return np.isin(self._windows(prefix, n), self._known(n))

    def _hashes_of_length(self, n: int) -> Hashes:
        windows = [self._windows(prefix, n) for prefix in self._prefixes]
        return np.unique(np.concatenate([np.empty(0, np.uint64), *windows]))

    def _prefix(self, tokens: Sequence[str]) -> Hashes:
        """Hashes of all prefixes, modulo 2^64; an unknown word is 0, like no known one."""
        state, states = 0, [0]
        for token in tokens:
            state = (state * self._base + int(self._values.get(token, 0))) % 2**64
            states.append(state)
        return np.array(states, dtype=np.uint64)

    def _windows(self, prefix: Hashes, n: int) -> Hashes:
        if len(prefix) <= n:
            return np.empty(0, np.uint64)
        power = np.uint64(pow(self._base, n, 2**64))
        hashes: Hashes = prefix[n:] - prefix[:-n] * power
        return hashes
