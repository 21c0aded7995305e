"""One spelling of a message: case, accents, apostrophes, hidden letters, look-alikes."""

from __future__ import annotations

import re
import unicodedata

_APOSTROPHES = re.compile("['’‘`´ʼ＇]")
_LOOKALIKES = str.maketrans({"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "@": "a", "$": "s"})
# Lower-case letters of other alphabets that look like Latin ones, whose words are not read here.
_TWINS = str.maketrans(
    "\u0430\u0432\u0441\u0501\u0435\u043d\u04bb\u0456\u0458\u043a\u04cf\u043c\u043e"
    "\u0440\u0455\u0442\u0443\u0445"
    "\u03b1\u03b5\u03b9\u03ba\u03bd\u03bf\u03c1\u03c4\u03c5\u03c7\u0131\u0142\u0111\u00f8",
    "abcdehhijklmopstyxaeikvoptuxildo",
)
_INVISIBLE = ("Cf", "Mn", "Me")  # marks without a width, joiners, directions, accents
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
    together, letters of other alphabets are the Latin ones they look like, stretched letters are
    one ("dieee"), digits within words are read as letters.
    """
    plain = unicodedata.normalize("NFKD", text).casefold().translate(_TWINS)
    plain = "".join(c for c in plain if unicodedata.category(c) not in _INVISIBLE)
    plain = _APOSTROPHES.sub("", plain)
    plain = _MIXED.sub(lambda match: match[0].translate(_LOOKALIKES), plain)
    plain = _SPELT_OUT.sub(lambda match: re.sub(r"[^a-z]", "", match[0]), plain)
    plain = _STRETCHED.sub(r"\1", plain)
    plain = " ".join(re.sub(r"[^\w*]|_", " ", plain).split())
    for pattern, together in _JOINED:
        plain = pattern.sub(together, plain)
    return plain
