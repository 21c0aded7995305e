"""The detector in front of a chat: recall first, phrases and an optional classifier."""

from __future__ import annotations

from dataclasses import dataclass

from sizewise.app.crisis.classifier import CrisisClassifier
from sizewise.app.crisis.phrases import PhraseList

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
