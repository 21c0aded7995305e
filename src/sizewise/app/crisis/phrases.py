"""Phrases as patterns over normalised text: what a detector looks for without a model."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sizewise.errors import ConfigError

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


CATEGORIES = ("suicidality", "self_harm", "harm_to_others", "emergency")
_WORD = re.compile(r"[a-z0-9]+\*?|~|\$[a-z_]+")
_FILLER = r"(?:[\w*]+ ){0,4}?"


@dataclass(frozen=True)
class Match:
    """What was found: its category and the normalised words that were matched."""

    category: str
    words: str


@dataclass(frozen=True)
class PhraseList:
    """Phrases by category in the notation of ``phrases.yaml``.

    Attributes:
        phrases: category → phrases.
        idioms: phrases that are taken out of the text first.
        fuzzy: category → words that are also found with one letter wrong, missing or too many.
        words: names for ``$name`` → words.
    """

    phrases: Mapping[str, Sequence[str]]
    idioms: Sequence[str] = ()
    fuzzy: Mapping[str, Sequence[str]] = field(default_factory=dict)
    words: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def from_mapping(cls, content: Mapping[str, Any]) -> PhraseList:
        """Build from a YAML file's content; raises ConfigError for unknown keys or notation."""
        known = {*CATEGORIES, "idioms", "fuzzy", "words"}
        unknown = sorted(set(content) - known)
        if unknown:
            raise ConfigError(
                f"Phrases of the crisis detector: {unknown[0]!r} is not known. "
                f"Keys: {', '.join(sorted(known))}."
            )
        found = cls(
            phrases={name: tuple(content.get(name) or ()) for name in CATEGORIES},
            idioms=tuple(content.get("idioms") or ()),
            fuzzy=dict(content.get("fuzzy") or {}),
            words=dict(content.get("words") or {}),
        )
        _ = found._patterns, found._idiom_pattern  # a mistake is said now, not in a chat
        return found

    def find(self, text: str) -> Match | None:
        """Return the first match in ``text``, in the order of the categories; None: nothing."""
        plain = normalise(text)
        if self._idiom_pattern is not None:
            plain = self._idiom_pattern.sub(" ", plain)
        for category, pattern in self._patterns.items():
            found = pattern.search(plain)
            if found is not None:
                return Match(category, found[0].strip())
        return self._misspelt(plain)

    def _misspelt(self, plain: str) -> Match | None:
        for category, words in self.fuzzy.items():
            for typed in plain.split():
                if any(one_edit_apart(typed, word) for word in words):
                    return Match(category, typed)
        return None

    @cached_property
    def _patterns(self) -> dict[str, re.Pattern[str]]:
        return {name: self._any(phrases) for name, phrases in self.phrases.items() if phrases}

    @cached_property
    def _idiom_pattern(self) -> re.Pattern[str] | None:
        return self._any(self.idioms) if self.idioms else None

    def _any(self, phrases: Sequence[str]) -> re.Pattern[str]:
        return re.compile("|".join(rf"\b(?:{self._phrase(phrase)})(?!\w)" for phrase in phrases))

    def _phrase(self, phrase: str) -> str:
        tokens = str(phrase).split()
        if not tokens:
            raise ConfigError("Phrases of the crisis detector: one is empty. Remove it.")
        pattern = ""
        for place, token in enumerate(tokens):
            optional = token.endswith("?")
            core = token.removesuffix("?")
            last = place == len(tokens) - 1
            if core == "~":
                pattern += _FILLER if not last else ""
                continue
            options = "|".join(option for part in core.split("|") for option in self._option(part))
            # A filler takes whole words: without its space "be ~ dead" would find "because … dead".
            space = "" if last else " " if tokens[place + 1] == "~" else " ?"
            pattern += f"(?:(?:{options}){space}){'?' if optional else ''}"
        return pattern

    def _option(self, part: str) -> list[str]:
        if not _WORD.fullmatch(part):
            raise ConfigError(
                f"Phrases of the crisis detector: {part!r} is not in the notation. Use lower-case "
                "words without apostrophes, a|b, word?, wor*, ~ and $name."
            )
        if not part.startswith("$"):
            return [_word(part)]
        named = self.words.get(part[1:])
        if named is None:
            raise ConfigError(f"Phrases of the crisis detector: {part} is not among its words.")
        return [" ?".join(_word(piece) for piece in str(word).split()) for word in named]


def _word(word: str) -> str:
    """Pattern of one word; a vowel may be hidden behind an asterisk ("k*ll")."""
    letters = "".join(f"[{c}*]" if c in "aeiou" else c for c in word.removesuffix("*"))
    return letters + (r"\w*" if word.endswith("*") else "")


def one_edit_apart(a: str, b: str) -> bool:
    """Whether one insertion, deletion, replacement or swap of neighbours makes ``a`` to ``b``."""
    if a == b or abs(len(a) - len(b)) > 1:
        return a == b
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(b))
    rest, wanted = a[start:], b[start:]
    swapped = rest[1:2] + rest[:1] + rest[2:]
    return wanted in (rest[1:], swapped) or wanted[1:] in (rest, rest[1:])
