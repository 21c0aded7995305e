"""BERTScore (Zhang et al. 2020) through torchmetrics, by a named encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sizewise.errors import ConfigError
from sizewise.metrics.text import TextMetric

if TYPE_CHECKING:
    from sizewise.evaluation.prediction import Prediction


class BertScore(TextMetric):
    """Precision, recall and F1 of greedily matched token embeddings; an empty answer has 0.

    No weighting by inverse document frequency and no rescaling by a baseline.

    Args:
        encoder: local folder or hub id of an encoder model; there is no default.
        layer: hidden layer to take (null: the last one).
        max_length: tokens that the encoder reads of each text.
        batch_size: texts per forward pass.
    """

    name = "bertscore"

    def __init__(
        self, encoder: str, layer: int | None = None, max_length: int = 512, batch_size: int = 16
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.layer = layer
        self.max_length = max_length
        self.batch_size = batch_size

    def text_scores(self, predictions: Sequence[Prediction]) -> list[dict[str, float]]:
        """Score all answers that are not empty in one go."""
        full = [p for p in predictions if p.text and p.reference]
        found = iter(self._scores(full) if full else [])
        zero = {"precision": 0.0, "recall": 0.0, "f1": 0.0}
        return [next(found) if p.text and p.reference else dict(zero) for p in predictions]

    def _scores(self, predictions: Sequence[Prediction]) -> list[dict[str, float]]:
        from torchmetrics.functional.text import bert_score

        try:
            result: dict[str, Any] = bert_score(
                [p.text for p in predictions],
                [p.reference for p in predictions],
                model_name_or_path=self.encoder,
                num_layers=self.layer,
                max_length=self.max_length,
                batch_size=self.batch_size,
                truncation=True,
            )
        except OSError as error:
            raise ConfigError(
                f"metric.bertscore.encoder={self.encoder!r} cannot be loaded: {error}. "
                "Give a local folder or a hub id that can be reached."
            ) from error
        rows = {name: result[name].reshape(-1).tolist() for name in ("precision", "recall", "f1")}
        return [
            {name: float(values[i]) for name, values in rows.items()}
            for i in range(len(predictions))
        ]
