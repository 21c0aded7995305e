"""ICD-10 codes in free text: finding, normalising, and looking them up in a catalogue."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from sizewise.catalogue import load_entries
from sizewise.data.tokens.reasoning import strip_reasoning
from sizewise.metrics.reading.closed import Lexicon

# Letter, digit, digit or A/B, then up to four more characters, with or without the dot.
_CODE = re.compile(r"(?<![A-Za-z0-9])[A-Za-z][0-9][0-9ABab](?:\.?[0-9A-Za-z]{1,4})?(?![A-Za-z0-9])")
# What may be a word glued to a code by a full stop: "I10.The patient" (but X58.XXXA is a code).
_GLUED = re.compile(r"\.[A-Za-z]{2,4}$")


class Catalogue(NamedTuple):
    """What is known of a set of codes; codes are passed in normal form, such as ``E119``."""

    contains: Callable[[str], bool]
    is_leaf: Callable[[str], bool]


def normalise(code: str) -> str:
    """Return a code in capitals without its dot: ``e11.9`` becomes ``E119``."""
    return code.strip().upper().replace(".", "")


def dotted(code: str) -> str:
    """Return a normalised code as it is printed: ``E119`` becomes ``E11.9``."""
    return code if len(code) <= 3 else f"{code[:3]}.{code[3:]}"


def find_codes(text: str, known: Callable[[str], bool] | None = None) -> list[str]:
    """Return everything that has the form of a code, normalised, in order.

    With ``known``, a word after a code and a full stop is no part of it where the two together are
    not known and the code is: "I10.The patient" gives I10.
    """
    return [_without_word(match, known) for match in _CODE.findall(text)]


def _without_word(match: str, known: Callable[[str], bool] | None) -> str:
    whole, code = normalise(match), normalise(_GLUED.sub("", match))
    glued = known is not None and code != whole and not known(whole) and known(code)
    return code if glued else whole


def extract_code(text: str, known: Callable[[str], bool] | None = None) -> str | None:
    """Return the code that a free-text answer gives, normalised; None if it gives none.

    Reasoning is removed first. Of several matches the first that is ``known`` counts ("vitamin
    B12 deficiency, E53.8" means E53.8), or the first of all if none is.
    """
    codes = find_codes(strip_reasoning(text), known)
    if known is not None:
        return next((code for code in codes if known(code)), codes[0] if codes else None)
    return codes[0] if codes else None


@cache
def load_catalogue(name: str) -> Catalogue:
    """Load a catalogue that comes with its package; nothing is downloaded.

    Categories such as ``E11`` belong to it; chapters and blocks do not.

    Raises:
        ConfigError: the name is unknown or its package is not installed.
    """
    entries = load_entries(name)
    return Catalogue(entries.__contains__, lambda code: entries[code].is_leaf)


@cache
def load_descriptions(name: str) -> Lexicon:
    """Load the descriptions of all codes of a catalogue, to find the code that a text describes.

    Where a code and its subdivision are described alike, the description means the subdivision.
    """
    entries = load_entries(name)
    leaves = {entry.description for entry in entries.values() if entry.is_leaf}
    return Lexicon(
        (entry.description, code)
        for code, entry in entries.items()
        if entry.description not in leaves or entry.is_leaf
    )
