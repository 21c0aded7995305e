"""How good the crisis detector is, and the figures as Markdown for its page in the docs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from statsmodels.stats.proportion import proportion_confint

from sizewise.app.crisis.detector import LABELS, CrisisDetector, Sentence, read_labelled
from sizewise.app.crisis.phrases import CATEGORIES
from sizewise.app.crisis.settings import read_settings
from sizewise.files import write_atomically
from sizewise.statistics.bootstrap import Interval


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


BEGIN, END = "<!-- figures -->", "<!-- /figures -->"


@cache
def delivered() -> Quality:
    """Return what the detector as delivered does on the held-out sentences."""
    return measure(read_settings().detector(), read_labelled("held_out"))


def figures() -> str:
    """Return the tables: phrases, with n-grams, and as delivered, on the held-out sentences."""
    settings = read_settings()
    held_out, dev = read_labelled("held_out"), read_labelled("dev")
    measured = {
        "phrases alone": measure(CrisisDetector(settings.phrases), held_out),
        "with `tfidf`": measure(replace(settings, classifier="tfidf").detector(), held_out),
        "as delivered": delivered(),
    }
    crises = sum(s.is_crisis for s in held_out)
    lines = [
        f"{len(held_out)} held-out sentences, {crises} of them crises "
        f"({len(dev)} others made the phrases and the classifier).",
        "",
        *_table(measured),
        "",
        "Crises that the delivered detector misses there:",
        "",
        *(f"- {text}" for text in measured["as delivered"].missed),
    ]
    return "\n".join(lines)


def _table(measured: dict[str, Quality]) -> list[str]:
    columns = [_column(quality) for quality in measured.values()]
    lines = [f"| | {' | '.join(measured)} |", f"|---|{'---|' * len(measured)}"]
    for name in columns[0]:
        lines.append(f"| {name} | {' | '.join(str(column[name]) for column in columns)} |")
    return lines


def _column(quality: Quality) -> dict[str, Share]:
    recalls = {f"recall, {c.replace('_', ' ')}": quality.by_category[c] for c in CATEGORIES}
    return {
        "**recall**": quality.recall,
        "precision": quality.precision,
        **recalls,
        "fires on near misses": quality.fired["near_miss"],
        "fires on ordinary messages": quality.fired["ordinary"],
        "fires on short replies": quality.fired["reply"],
        "fires on medical complaints": quality.fired["medical"],
    }


def with_figures(page: str) -> str:
    """Return ``page`` with what stands between the marks replaced by the measured figures."""
    before, rest = page.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    return f"{before}{BEGIN}\n{figures()}\n{END}{after}"


if __name__ == "__main__":
    target = Path(sys.argv[1])
    write_atomically(target, with_figures(target.read_text(encoding="utf-8")))
