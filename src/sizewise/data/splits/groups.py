"""Groups of examples that must never straddle splits, and how much a split leaks."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import exp, lgamma

from sizewise.data.example import Example
from sizewise.files import hash_text

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
    return {key for key in keys if key.startswith((TEXT, WORDED))}


def _hash(text: str) -> str:
    normal = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return hash_text(normal, 16)


def rank(seed: int, name: str) -> str:
    """Place of ``name`` in the order that ``seed`` draws; adding names moves no other."""
    return hash_text(f"{seed}:{name}")


def connect(keys: Sequence[Sequence[str]]) -> list[str]:
    """Name the connected component of each item; items that share one of their ``keys`` are in one.

    A component is named by the smallest of its declared keys, or of its text keys where none is
    declared (then of those of wordings and rows); the same under any order of the items. Every
    item has at least one key.
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


Parts = Mapping[str, Sequence[Example]]


def shared_groups(parts: Parts) -> int:
    seen = Counter(group for rows in parts.values() for group in {e.group for e in rows})
    return sum(count > 1 for count in seen.values())


def leaking_rows(parts: Parts) -> int:
    trained = {example.group for example in parts["train"]}
    return sum(e.group in trained for name in ("validation", "test") for e in parts[name])


def row_split_leak(group_sizes: Sequence[int], train_rows: int) -> float:
    """Expected share of test rows whose group is in training, under a random split of rows.

    A test row of a group of g out of N rows (the sum of ``group_sizes``) has a relative in a
    training split of n ≤ N−1 rows drawn from the others with probability
    1 − C(N−g, n) / C(N−1, n).
    """
    total = sum(group_sizes)
    if total < 2 or train_rows < 1:
        return 0.0
    train = min(train_rows, total - 1)
    leaking = sum(size * _relative_in_training(size, total, train) for size in group_sizes)
    return leaking / total


def _relative_in_training(size: int, total: int, train: int) -> float:
    if total - size < train:
        return 1.0
    return 1.0 - exp(_log_choose(total - size, train) - _log_choose(total - 1, train))


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
