"""One spelling of a message: case, accents, apostrophes, hidden letters and stretched words."""

from __future__ import annotations

import re
import unicodedata

_APOSTROPHES = re.compile("['’‘`´ʼ＇]")
_LOOKALIKES = str.maketrans({"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "@": "a", "$": "s"})
_MIXED = re.compile(r"(?=\w*[a-z])(?=\w*[0-9@$])[\w@$]{3,}|[a-z]+[@$][a-z]+")
_SPELT_OUT = re.compile(r"\b(?:[a-z][ .\-_*]+){3,}[a-z]\b")
_STRETCHED = re.compile(r"([a-z])\1{2,}")
_JOINED = (
    (re.compile(r"\b(my|him|her|your|them|our) ?(self|selves)\b"), r"\1\2"),
    (re.compile(r"\bany ?more\b"), "any more"),
    (re.compile(r"\bno ?one\b"), "no one"),
    (re.compile(r"\b(i) (m|ve|d|ll)\b"), r"\1\2"),
    (re.compile(r"\b(do|ca|wo|is|was|did|does|would|could|are|have) ?n ?t\b"), r"\1nt"),
    (re.compile(r"\bcan not\b"), "cannot"),
)


def normalise(text: str) -> str:
    """Return lower-case words separated by one space; ``*`` inside a word stays (a hidden letter).

    Apostrophes vanish ("don't" and "dont" are one), words spelt out ("s.u.i.c.i.d.e") are put
    together, stretched letters are one ("dieee"), digits within words are read as letters.
    """
    plain = unicodedata.normalize("NFKD", text).casefold()
    plain = "".join(c for c in plain if not unicodedata.combining(c) and c not in _HIDDEN)
    plain = _APOSTROPHES.sub("", plain)
    plain = _MIXED.sub(lambda match: match[0].translate(_LOOKALIKES), plain)
    plain = _SPELT_OUT.sub(lambda match: re.sub(r"[^a-z]", "", match[0]), plain)
    plain = _STRETCHED.sub(r"\1", plain)
    plain = " ".join(re.sub(r"[^\w*]|_", " ", plain).split())
    for pattern, together in _JOINED:
        plain = pattern.sub(together, plain)
    return plain


_HIDDEN = frozenset("\u200b\u200c\u200d\u2060\ufeff\u00ad")
