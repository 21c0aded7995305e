"""Groups of examples that must never straddle splits, and orders that do not depend on rows."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence

TEXT = "text:"
WORDED = "worded:"
ROW = "row:"
_NAMED_LAST = (TEXT, WORDED, ROW)


def text_key(text: str) -> str:
    """Key of a text: equal but for case, white space and compatibility forms means the same key."""
    return TEXT + _hash(text)


def worded_key(text: str) -> str:
    """Key of a text as a prompt words it: it ties examples, and never names their group.

    What names a group must not depend on the wording, or another one would draw other splits.
    """
    return WORDED + _hash(text)


def row_key(name: str) -> str:
    """Key of a row, which two data sets may put into different words."""
    return ROW + name


def question_keys(keys: Iterable[str]) -> set[str]:
    """Return those keys that stand for a question."""
    return {key for key in keys if key.startswith((TEXT, WORDED))}


def _hash(text: str) -> str:
    normal = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return hashlib.sha256(normal.encode()).hexdigest()[:16]


def rank(seed: int, name: str) -> str:
    """Place of ``name`` in the order that ``seed`` draws; adding names moves no other."""
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def connect(keys: Sequence[Sequence[str]]) -> list[str]:
    """Name the connected component of each item; items that share a key are connected.

    Args:
        keys: for each item its keys, at least one.

    Returns:
        For each item the name of its component: the smallest of its declared keys, or of its text
        keys where none is declared (then of those of wordings and rows); the same under any order
        of the items.
    """
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for own in keys:
        for key in own[1:]:
            parent[root(key)] = root(own[0])
        root(own[0])
    names: dict[str, str] = {}
    for key in parent:
        top = root(key)
        names[top] = min(names.get(top, key), key, key=_place)
    return [names[root(own[0])] for own in keys]


def _place(key: str) -> tuple[int, str]:
    """Declared keys name a group before texts, texts before wordings and rows."""
    places = [place for place, kind in enumerate(_NAMED_LAST, 1) if key.startswith(kind)]
    return (places[0] if places else 0), key
