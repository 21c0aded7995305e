"""How good a detector is: recall and precision with Wilson intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from statsmodels.stats.proportion import proportion_confint

from sizewise.app.crisis.detector import CrisisDetector
from sizewise.app.crisis.labelled import LABELS, Sentence
from sizewise.app.crisis.phrases import CATEGORIES
from sizewise.statistics.interval import Interval


@dataclass(frozen=True)
class Share:
    """``hits`` of ``total``, with a Wilson interval of the share; NaN where ``total`` is 0."""

    hits: int
    total: int
    interval: Interval | None

    @property
    def value(self) -> float:
        """Hits over total."""
        return self.hits / self.total if self.total else float("nan")

    def __str__(self) -> str:
        if self.interval is None:
            return "–"
        low, high = 100 * self.interval.low, 100 * self.interval.high
        return f"{100 * self.value:.0f} % ({self.hits}/{self.total}; {low:.0f}–{high:.0f} %)"


@dataclass(frozen=True)
class Quality:
    """What a detector does on labelled sentences.

    Attributes:
        recall: crises found, of all crises.
        precision: crises among what fired (at the shares of crises of the labelled set).
        fired: label → how often it fired.
        by_category: category → crises found.
        missed: crises that were not found.
    """

    recall: Share
    precision: Share
    fired: dict[str, Share]
    by_category: dict[str, Share]
    missed: tuple[str, ...]


def share(hits: int, total: int, level: float = 0.95) -> Share:
    """Return a share with its Wilson interval (Wilson 1927, JASA 22)."""
    if total == 0:
        return Share(hits, total, None)
    low, high = proportion_confint(hits, total, alpha=1.0 - level, method="wilson")
    return Share(hits, total, Interval(max(0.0, low), min(1.0, high), level, "Wilson"))


def measure(detector: CrisisDetector, sentences: Sequence[Sentence]) -> Quality:
    """Run ``detector`` over labelled sentences."""
    fires = [detector.check(s.text) is not None for s in sentences]
    pairs = list(zip(sentences, fires, strict=True))
    crises = [(s, fired) for s, fired in pairs if s.is_crisis]
    found = sum(fired for _, fired in crises)

    def count(chosen: Sequence[bool]) -> Share:
        return share(sum(chosen), len(chosen))

    return Quality(
        recall=share(found, len(crises)),
        precision=share(found, sum(fires)),
        fired={label: count([f for s, f in pairs if s.label == label]) for label in LABELS},
        by_category={c: count([f for s, f in crises if s.category == c]) for c in CATEGORIES},
        missed=tuple(s.text for s, fired in crises if not fired),
    )
