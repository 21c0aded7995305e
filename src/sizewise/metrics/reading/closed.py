"""What metrics on closed answer sets share: form forgiven, and answers by likelihood.

An untouched model often knows the answer and says it in other words than the task wants. As said,
said with its form forgiven, and the most likely of all answers are three readings of one model;
what differs between them is form, not knowledge.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import regex

if TYPE_CHECKING:
    from sizewise.record.predictions import Prediction

EXACT, LENIENT = "exact_match", "lenient_match"
LIKELY = "likelihood_match"
LIKELY_PER_TOKEN = "likelihood_per_token_match"
LIKELY_CALIBRATED = "likelihood_calibrated_match"
LIKELIHOOD = {
    LIKELY: "candidate",
    LIKELY_PER_TOKEN: "candidate_per_token",
    LIKELY_CALIBRATED: "candidate_calibrated",
}
READINGS = (EXACT, LENIENT, *LIKELIHOOD)
# Numbers with their fraction and, unless it joins them to a word, their sign; letters with the
# signs that belong to them (vowels of Hindi, accents that stand alone).
_WORD = regex.compile(
    r"(?:(?<![\w)])[-+\u2212])?(?:\d+(?:[.,]\d+)*|(?<!\w)\.\d+)(?![\p{L}\p{M}])"
    r"|[\p{L}\p{M}\p{N}]+"
)


def likelihood_matches(prediction: Prediction, agrees: Callable[[str], bool]) -> dict[str, float]:
    """Score the candidates that a prediction names, by reading; those it lacks have no score.

    Args:
        prediction: an answer.
        agrees: whether a candidate is the reference.
    """
    named = {reading: getattr(prediction, field) for reading, field in LIKELIHOOD.items()}
    return {r: float(agrees(candidate)) for r, candidate in named.items() if candidate is not None}


def plain(text: str) -> str:
    """Return a label as it is compared: without case, outer quotes and a full stop, spaces joined.

    Other signs stay: ``C``, ``C++`` and ``C#`` are three labels, and ``.5`` is not ``5``. An accent
    is the same however it is written in Unicode.
    """
    joined = " ".join(unicodedata.normalize("NFC", text.casefold()).split())
    bare = joined.strip(" .\"'`")
    fraction = bare[:1].isdigit() and joined.partition(bare)[0].endswith(".")
    return f".{bare}" if fraction else bare or joined


class Lexicon:
    """Finds names in texts as whole words; case, punctuation and white space do not matter.

    A longer name goes before the shorter ones inside it: in "family history" there is no "history"
    where both are names. Negations are not read.

    Args:
        names: pairs of a name and what it means. Names that are the same words are one name with
            several meanings; a name without words is never found.
    """

    def __init__(self, names: Iterable[tuple[str, str]]) -> None:
        self._meanings: dict[tuple[str, ...], set[str]] = {}
        for name, meaning in names:
            key = tuple(words(name))
            if key:
                self._meanings.setdefault(key, set()).add(meaning)
        self._lengths = sorted({len(key) for key in self._meanings}, reverse=True)

    def only(self, text: str) -> str | None:
        """Return what the one name in a text means; None without a name, or with several."""
        found = self._found(words(text))
        return next(iter(found)) if len(found) == 1 else None

    def _found(self, tokens: list[str]) -> set[str]:
        found: set[str] = set()
        free = [True] * len(tokens)
        for length in self._lengths:
            for start in range(len(tokens) - length + 1):
                meanings = self._meanings.get(tuple(tokens[start : start + length]))
                if meanings and all(free[start : start + length]):
                    found |= meanings
                    free[start : start + length] = [False] * length
        return found


def words(text: str) -> list[str]:
    """Return the words and numbers of a text, without case, accents written in one way."""
    return list(_WORD.findall(unicodedata.normalize("NFC", text.casefold())))
