"""How well an answer agrees with a label: classification of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sizewise.data.tokens.reasoning import answer_of
from sizewise.metrics.icd10 import averages
from sizewise.metrics.reading.closed import Lexicon, likelihood_matches, plain
from sizewise.metrics.text import TextMetric

if TYPE_CHECKING:
    from sizewise.data.example import Example
    from sizewise.record.predictions import Prediction


class Label(TextMetric):
    """The whole answer is the label, but for case, white space, quotes and a full stop.

    Scores: ``exact_match``; ``lenient_match``, the one label that the answer names; the matches by
    likelihood where candidates were scored; ``unparsed``, 1 where the answer is no label that
    occurs in training or as a reference. Summaries add macro and weighted precision, recall and F1
    over the labels that occur as references.
    """

    name = "label"
    closed = True
    of_training = ("lenient_match", "unparsed")

    def __init__(self) -> None:
        super().__init__()
        self.known: set[str] = set()

    def counts_as(self, answer: str) -> str:
        return plain(answer_of(answer))

    def set_context(self, train_examples: Sequence[Example]) -> None:
        self.known = {plain(answer_of(example.answer)) for example in train_examples}

    def text_scores(self, predictions: Sequence[Prediction]) -> list[dict[str, float]]:
        known = (self.known | {plain(p.reference) for p in predictions}) - {""}
        lexicon = Lexicon((label, label) for label in known)
        return [_scores(p, plain(p.text), plain(p.reference), known, lexicon) for p in predictions]

    def aggregate(
        self, predictions: Sequence[Prediction], scores: Sequence[Mapping[str, float]]
    ) -> dict[str, float]:
        """Rates over all examples, and precision, recall and F1 over the reference labels."""
        clean = self.cleaned(predictions)
        found, references = [plain(p.text) for p in clean], [plain(p.reference) for p in clean]
        return super().aggregate(predictions, scores) | averages(found, references)


def _scores(
    prediction: Prediction, said: str, reference: str, known: set[str], lexicon: Lexicon
) -> dict[str, float]:
    named = said if said in known else lexicon.only(said)
    return {
        "exact_match": float(bool(prediction.text) and said == reference),
        "lenient_match": float(bool(prediction.text) and named == reference),
        "unparsed": float(said not in known),
    } | likelihood_matches(prediction, lambda candidate: plain(answer_of(candidate)) == reference)
