"""BERTScore (Zhang et al. 2020), by a named encoder.

Written here because torchmetrics 1.9 sorts answers and references by length apart from one another
and then mixes up which belongs to which (its values are right for texts of one length only).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from sizewise.errors import ConfigError
from sizewise.metrics.similarity import encoder_path
from sizewise.metrics.text import TextMetric
from sizewise.models.sources import check_encoder

if TYPE_CHECKING:
    import torch

    from sizewise.record.predictions import Prediction

KEY = "metric.bertscore.encoder"


class TokenEncoder:
    """Contextual embeddings of a text's own tokens, in float32 on the CPU.

    ``layer``: hidden layer to take, 0 being the embeddings (None: the last one).

    Raises:
        ConfigError: the encoder cannot be loaded, or has no such layer.
    """

    def __init__(self, path: str, layer: int | None) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        try:
            folder = encoder_path(path, KEY)
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            model: Any = AutoModel.from_pretrained(
                folder, dtype=torch.float32, trust_remote_code=False
            ).eval()
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{KEY}={path!r} cannot be loaded: {error}. "
                "Give a local folder or a hub id that can be reached."
            ) from error
        self._model = model.get_encoder() if model.config.is_encoder_decoder else model
        layers = model.config.num_hidden_layers
        if layer is not None and not 0 <= layer <= layers:
            raise ConfigError(
                f"metric.bertscore.layer={layer}: {path} has the layers 0 to {layers}. "
                "Choose one of these, or null for the last."
            )
        self._layer = layers if layer is None else layer
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token

    def embed(
        self, texts: Sequence[str], max_length: int, batch_size: int
    ) -> Iterator[torch.Tensor]:
        """Yield the unit vectors [T, D] of each text; special tokens are left out."""
        limit = min(max_length, self._tokenizer.model_max_length)
        for start in range(0, len(texts), batch_size):
            yield from self._batch(texts[start : start + batch_size], limit)

    def _batch(self, texts: Sequence[str], limit: int) -> Iterator[torch.Tensor]:
        import torch

        inputs = self._tokenizer(
            list(texts),
            truncation=True,
            max_length=limit,
            padding=True,
            return_tensors="pt",
            return_special_tokens_mask=True,
        )
        own_BT = inputs.pop("special_tokens_mask") == 0
        own_BT &= inputs["attention_mask"] == 1
        with torch.inference_mode():
            states = self._model(**inputs, output_hidden_states=True).hidden_states
        vectors_BTD = torch.nn.functional.normalize(states[self._layer], dim=-1)
        for vectors_TD, own_T in zip(vectors_BTD, own_BT, strict=True):
            yield vectors_TD[own_T]


@cache
def load_token_encoder(path: str, layer: int | None) -> TokenEncoder:
    return TokenEncoder(path, layer)


def greedy_matching(answer_TD: torch.Tensor, reference_TD: torch.Tensor) -> dict[str, float]:
    """Match each token with the most similar one of the other text (equation 1 of the paper).

    ``f1`` is 0 where precision or recall is not positive, for which a harmonic mean says nothing,
    and so is everything where a text has no token.
    """
    if not len(answer_TD) or not len(reference_TD):
        return {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    similar = answer_TD @ reference_TD.T
    precision = float(similar.max(dim=1).values.mean())
    recall = float(similar.max(dim=0).values.mean())
    positive = precision > 0.0 and recall > 0.0
    f1 = 2.0 * precision * recall / (precision + recall) if positive else 0.0
    return {"precision": precision, "recall": recall, "f1": f1}


class BertScore(TextMetric):
    """Precision, recall and F1 of greedily matched token embeddings; an empty answer has 0.

    No weighting by inverse document frequency and no rescaling by a baseline. ``encoder``: local
    folder or hub id; ``layer``: hidden layer to take (null: the last one); ``max_length``: tokens
    that are read of each text.
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

    def check_settings(self) -> None:
        check_encoder(encoder_path(self.encoder, KEY), KEY)

    def text_scores(self, predictions: Sequence[Prediction]) -> list[dict[str, float]]:
        encoder = load_token_encoder(self.encoder, self.layer)
        answers, references = (
            encoder.embed(texts, self.max_length, self.batch_size)
            for texts in ([p.text for p in predictions], [p.reference for p in predictions])
        )
        return [greedy_matching(a, r) for a, r in zip(answers, references, strict=True)]
