"""How well a model predicts the reference answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sizewise.metrics.base import ExampleMetric

if TYPE_CHECKING:
    from sizewise.record.predictions import Prediction


def perplexity(nll: float, tokens: int) -> float:
    """exp(nll / tokens), with ``nll`` in nats summed over ``tokens`` (Jelinek et al. 1977)."""
    mean = nll / tokens
    return math.exp(mean) if mean < 700 else math.inf


def bits_per_byte(nll: float, n_bytes: int) -> float:
    """nll / ln 2 / bytes: comparable across tokenizers, for bytes do not depend on them."""
    return nll / math.log(2) / n_bytes


class Perplexity(ExampleMetric):
    """Perplexity per answer token and bits per byte of answer text, over the whole corpus.

    The end-of-turn token is among the tokens but has no bytes.
    """

    name = "perplexity"
    needs_likelihood = True
    higher_is_better = False

    def score(self, prediction: Prediction) -> dict[str, float]:
        """Return the values of one answer; ``nll`` in nats."""
        nll = -prediction.log_prob
        scores = {
            "nll": nll,
            "nll_per_token": nll / prediction.answer_tokens,
            "perplexity": perplexity(nll, prediction.answer_tokens),
        }
        if prediction.answer_bytes:
            scores["bits_per_byte"] = bits_per_byte(nll, prediction.answer_bytes)
        return scores

    def aggregate(
        self, predictions: Sequence[Prediction], scores: Sequence[Mapping[str, float]]
    ) -> dict[str, float]:
        """Sums over the corpus divided by its tokens and bytes (no mean of means)."""
        nll = -math.fsum(p.log_prob for p in predictions)
        tokens = sum(p.answer_tokens for p in predictions)
        n_bytes = sum(p.answer_bytes for p in predictions)
        return {
            "nll_per_token": nll / tokens,
            "perplexity": perplexity(nll, tokens),
            "bits_per_byte": bits_per_byte(nll, n_bytes) if n_bytes else math.nan,
        }
