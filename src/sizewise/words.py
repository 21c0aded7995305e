"""Numbers as people read them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

BIDI = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def literal(text: object) -> str:
    """Text that is not ours, for rich: shown as it is, whatever brackets it holds.

    Every text of data, models, records, files and commands goes through here before it is printed.
    """
    from rich.markup import escape  # not where nothing is printed

    return escape(visible(str(text)))


def visible(text: str) -> str:
    """Write what a terminal would obey, or show in another order, as codes (``\\u001b``)."""
    return "".join(f"\\u{ord(c):04x}" if _obeyed(c) else c for c in text)


def _obeyed(character: str) -> bool:
    if character in "\n\t":
        return False
    return unicodedata.category(character) == "Cc" or unicodedata.bidirectional(character) in BIDI


@dataclass(frozen=True)
class Scale:
    """How a score is shown: shares of 1 as percent, everything else as it is."""

    percent: bool

    @property
    def unit(self) -> float:
        """What a score is multiplied by to be drawn."""
        return 100.0 if self.percent else 1.0

    def value(self, score: float | None) -> str:
        """``60.0 %`` or ``1.234``; a dash where there is nothing."""
        if score is None or not math.isfinite(score):
            return "–"
        return f"{100 * score:.1f} %" if self.percent else f"{score:.3f}"

    def difference(self, score: float | None, unit: bool = True) -> str:
        """``+15.0 points`` or ``−0.12``, with its sign."""
        if score is None or not math.isfinite(score):
            return "–"
        if not self.percent:
            return signed(score, 3)
        return signed(100 * score, 1) + (" points" if unit else "")

    def points(self, score: float | None) -> str:
        return self.difference(score, unit=False)

    def cut(self, low: float, high: float, least: float = -1.0) -> tuple[float, float]:
        """Ends of an interval within what they can be: shares differ by at most 1.

        ``least``: 0 for the interval of a share itself.
        """
        if not self.percent:
            return low, high
        return min(max(low, least), 1.0), max(min(high, 1.0), least)

    def detectable(self, effect: float) -> str:
        """A detectable effect as ``points`` without its sign; no share differs by more than 1."""
        return "none" if self.percent and effect > 1.0 else self.points(effect).lstrip("+")

    def interval(self, low: float, high: float) -> str:
        """``9.1 to 20.9``, in the unit of ``difference``, cut at what a difference can be."""
        low, high = self.cut(low, high)
        if not self.percent:
            return f"{signed(low, 3)} to {signed(high, 3)}"
        return f"{signed(100 * low, 1)} to {signed(100 * high, 1)}"


# Parts of names that are no words, as people write them.
SPELLED = {
    "icd10": "ICD-10", "tfidf": "TF-IDF", "logreg": "logistic regression", "f1": "F1",
    "majority": "commonest answer", "rouge": "ROUGE", "rouge1": "ROUGE-1", "rouge2": "ROUGE-2",
    "rougel": "ROUGE-L", "bleu": "BLEU", "chrf": "chrF", "nll": "NLL", "llm": "LLM",
}  # fmt: skip


def spelled(name: str) -> str:
    """A name in words: ``icd10_dialogues`` is ``ICD-10 dialogues``."""
    return " ".join(SPELLED.get(part.lower(), part) for part in name.replace("_", " ").split())


def score_name(score: str) -> str:
    """A score in words: ``icd10/lenient_match`` is ``lenient match (ICD-10)``."""
    metric, _, name = score.rpartition("/")
    said = metric and metric.lower() not in name.lower()
    return f"{spelled(name)} ({spelled(metric)})" if said else spelled(name)


def signed(value: float, digits: int) -> str:
    """A number with its sign, a true minus and no negative zero."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "−∞" if value < 0 else "–"
    rounded = round(value, digits) + 0.0
    return f"{'−' if rounded < 0 else '+'}{abs(rounded):.{digits}f}"


def p_value(p: float | None, at_most: bool = False) -> str:
    """``p = 0.012``, ``p < 0.001``; a dash where no test was possible.

    ``at_most``: the p-value is an upper bound, as where the draws of a test cannot go lower.
    """
    if p is None or not math.isfinite(p):
        return "–"
    if p < 0.001:
        return "p < 0.001"
    return f"p {'≤' if at_most else '='} {p:.3f}" if p < 0.995 else "p = 1"


def level(share: float) -> str:
    """Level of an interval, never rounded up to all: ``95 %``, ``99.8 %``, ``99.967 %``."""
    left = max(100.0 * (1.0 - share), 1e-6)
    text = f"{100.0 * share:.{max(1, 1 - math.floor(math.log10(left)))}f}"
    return text.rstrip("0").rstrip(".") + " %"


def count(number: float | None) -> str:
    """A large number in short: ``0.3 M``, ``4.1 B``."""
    return _in_units(
        number, ((1e8, 1e9, " B"), (1e5, 1e6, " M"), (1e3, 1e3, " k"), (-math.inf, 1, ""))
    )


def size(number: float | None) -> str:
    """Bytes in decimal units: ``1.2 MB``."""
    return _in_units(
        number, ((1e9, 1e9, " GB"), (1e6, 1e6, " MB"), (1e3, 1e3, " kB"), (-1, 1, " B"))
    )


def _in_units(number: float | None, units: Sequence[tuple[float, float, str]]) -> str:
    """The number over the first unit (from where on, size, name) that is reached."""
    if number is None or not math.isfinite(number):
        return "–"
    _, unit, name = next(entry for entry in units if number >= entry[0])
    return f"{number:.0f}{name}" if unit == 1 else f"{_short(number / unit)}{name}"


def seconds(number: float | None) -> str:
    """A duration: ``12 ms``, ``3.4 s``, ``12 min``, ``2.1 h``."""
    if number is None or not math.isfinite(number):
        return "–"
    if number < 1:
        return f"{_short(1000 * number)} ms" if number >= 1e-5 or number <= 0 else "< 0.01 ms"
    if number < 120:
        return f"{_short(number)} s"
    return f"{_short(number / 60)} min" if number < 7200 else f"{_short(number / 3600)} h"


def cut(text: str, most: int) -> str:
    """At most ``most`` characters of a text, the last a ``…`` where some are missing."""
    return text if len(text) <= most else text[: most - 1] + "…"


def first_of(names: Sequence[str], most: int, between: str = ", ") -> str:
    """The first ``most`` names, and how many follow: ``a, b and 3 more``."""
    left = len(names) - most
    return between.join(names[:most]) + (f" and {left} more" if left > 0 else "")


def plural(number: int, noun: str) -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def ratio(value: float) -> str:
    """A factor: ``0.08`` or ``3.2``."""
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 99.5 else f"{value:.3g}" if value >= 9.95 else f"{value:.2g}"
