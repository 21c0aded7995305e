"""ROUGE (Lin 2004) through Google's ``rouge_score``, with every choice pinned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sizewise.errors import ConfigError
from sizewise.metrics.text import TextMetric, sentences

if TYPE_CHECKING:
    from sizewise.record.predictions import Prediction

TYPES = {"rouge1": "1", "rouge2": "2", "rougeL": "l", "rougeLsum": "lsum"}


def rouge_scorer(use_stemmer: bool) -> Any:
    """Build the scorer (Porter stemmer, no download).

    Raises:
        ConfigError: the package is not installed.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise ConfigError(
            "metric=rouge needs the package rouge-score. Install it: pip install 'sizewise[rouge]'"
        ) from error
    return RougeScorer(list(TYPES), use_stemmer=use_stemmer, split_summaries=False)


class Rouge(TextMetric):
    """F-measures of ROUGE-1, -2, -L and -Lsum between 0 and 1; an empty answer has 0.

    Words are runs of ASCII letters and digits (the package's own rule), so that other scripts
    score 0; those of more than three letters are reduced by Porter's stemmer. Lsum's sentences are
    ours: after ``.!?`` and at line breaks.
    """

    name = "rouge"

    def __init__(self, use_stemmer: bool = True) -> None:
        super().__init__()
        self.use_stemmer = use_stemmer

    def text_scores(self, predictions: Sequence[Prediction]) -> list[dict[str, float]]:
        scorer = rouge_scorer(self.use_stemmer)
        return [_score(scorer, p.reference, p.text) for p in predictions]


def _score(scorer: Any, reference: str, text: str) -> dict[str, float]:
    found = scorer.score("\n".join(sentences(reference)), "\n".join(sentences(text)))
    return {short: float(found[name].fmeasure) for name, short in TYPES.items()}
