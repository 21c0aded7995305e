"""Groups of examples that must never straddle splits, and how much a split leaks."""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, lgamma

import numpy as np
from numpy.typing import NDArray

from sizewise.data.example import Example, Examples, as_examples
from sizewise.files import hash_text

TEXT = "text:"
WORDED = "worded:"
ROW = "row:"
_NAMED_LAST = (TEXT, WORDED, ROW)
_HASHED = re.compile(f"({'|'.join(_NAMED_LAST)})[0-9a-f]{{16}}")


def text_key(text: str) -> str:
    """Key of a text: equal but for case, white space and compatibility forms means the same key."""
    return TEXT + _hash(text)


def worded_key(text: str) -> str:
    """Key of a text as a prompt words it: it ties examples, and never names their group.

    What names a group must not depend on the wording, or another one would draw other splits.
    """
    return WORDED + _hash(text)


def row_key(name: str) -> str:
    """Key of a row by its id, which two data sets may put into different words."""
    return ROW + name


def _kind(key: str) -> str:
    """Return what a hash begins with; nothing for a declared key, whatever its column is named."""
    hashed = _HASHED.fullmatch(key)
    return hashed[1] if hashed else ""


def question_keys(keys: Iterable[str]) -> set[str]:
    return {key for key in keys if _kind(key) in (TEXT, WORDED)}


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
    names = sorted({key for own in keys for key in own}, key=_place)
    numbers = {name: number for number, name in enumerate(names)}
    owners = np.repeat(np.arange(len(keys)), [len(own) for own in keys])
    own_keys = np.array([numbers[key] for own in keys for key in own], dtype=np.int64)
    return [names[least] for least in least_keys(owners, own_keys, len(keys), len(names))]


def _place(key: str) -> tuple[int, str]:
    """Declared keys name a group before texts, texts before wordings and rows."""
    return ("", *_NAMED_LAST).index(_kind(key)), key


def least_keys(
    owners: NDArray[np.int64], keys: NDArray[np.int64], items: int, distinct: int
) -> NDArray[np.int64]:
    """Return the least key of each item's connected component.

    Args:
        owners: the item of each key, from 0 to ``items``.
        keys: the keys, as numbers from 0 to ``distinct``.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    nodes = items + distinct
    there = np.ones(len(keys), dtype=np.bool_)
    edges = coo_array((there, (owners, items + keys)), shape=(nodes, nodes))
    count, components = connected_components(edges, directed=False)
    least = np.full(count, distinct, dtype=np.int64)
    np.minimum.at(least, components[items:], np.arange(distinct))
    found: NDArray[np.int64] = least[components[:items]]
    return found


class KeyColumns:
    """Keys of many items as numbers: 16 bytes each, but for the texts of declared ones."""

    def __init__(self) -> None:
        self._count = 0
        self._declared: dict[str, int] = {}
        self._owners = {kind: array("q") for kind in ("", TEXT, WORDED)}
        self._values = {kind: array("Q") for kind in ("", TEXT, WORDED)}

    def add(self, keys: Iterable[str]) -> None:
        """Add the keys of the next item: declared, or made by ``text_key`` or ``worded_key``."""
        for key in keys:
            kind = _kind(key)
            if kind:
                value = int(key.removeprefix(kind), 16)
            else:
                value = self._declared.setdefault(key, len(self._declared))
            self._owners[kind].append(self._count)
            self._values[kind].append(value)
        self._count += 1

    def connect(self) -> Groups:
        """Find the groups, as ``connect`` does."""
        names = sorted(self._declared)
        place = np.empty(len(names), dtype=np.int64)
        place[[self._declared[name] for name in names]] = np.arange(len(names))
        distinct: dict[str, NDArray[np.uint64]] = {}
        numbers, total = [place[np.asarray(self._values[""], dtype=np.int64)]], len(names)
        for kind in (TEXT, WORDED):
            distinct[kind], own = np.unique(self._values[kind], return_inverse=True)
            numbers.append(own + total)
            total += len(distinct[kind])
        owners = np.concatenate([np.asarray(own, dtype=np.int64) for own in self._owners.values()])
        codes = least_keys(owners, np.concatenate(numbers), self._count, total)
        return Groups(codes, names, distinct[TEXT], distinct[WORDED])


@dataclass(frozen=True)
class Groups:
    """The group of each item as a number, and what groups are named."""

    codes: NDArray[np.int64]
    declared: Sequence[str]
    texts: NDArray[np.uint64]
    worded: NDArray[np.uint64]

    def name(self, code: int) -> str:
        place = code - len(self.declared)
        if place < 0:
            return self.declared[code]
        if place < len(self.texts):
            return f"{TEXT}{self.texts[place]:016x}"
        return f"{WORDED}{self.worded[place - len(self.texts)]:016x}"


def group_codes(parts: Mapping[str, Sequence[Example]]) -> dict[str, NDArray[np.int64]]:
    """Number the groups of several parts alike: the same number is the same group."""
    whole = {name: as_examples(part) for name, part in parts.items()}
    known = {name: part.numbered_groups() for name, part in whole.items()}
    found = {name: own[1] for name, own in known.items() if own is not None}
    if len(found) == len(parts) and len({id(own[0]) for own in known.values() if own}) == 1:
        return found
    numbers: dict[str, int] = {}
    return {
        name: np.fromiter(
            (numbers.setdefault(group, len(numbers)) for group in part.groups()),
            dtype=np.int64,
            count=len(part),
        )
        for name, part in whole.items()
    }


Parts = Mapping[str, Sequence[Example]]


def shared_groups(parts: Parts) -> int:
    own = [np.unique(codes) for codes in group_codes(parts).values()]
    _, counts = np.unique(np.concatenate(own), return_counts=True)
    return int((counts > 1).sum())


def leaking_rows(parts: Parts) -> int:
    codes = group_codes(parts)
    held = np.concatenate([codes["validation"], codes["test"]])
    return int(np.isin(held, codes["train"]).sum())


def group_sizes(examples: Examples) -> list[int]:
    """Count the examples of each group, in order of appearance."""
    codes = group_codes({"all": examples})["all"]
    _, first, counts = np.unique(codes, return_index=True, return_counts=True)
    sizes: list[int] = counts[np.argsort(first)].tolist()
    return sizes


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
    shares = {size: _relative_in_training(size, total, train) for size in set(group_sizes)}
    leaking = sum(size * shares[size] for size in group_sizes)
    return leaking / total


def _relative_in_training(size: int, total: int, train: int) -> float:
    if total - size < train:
        return 1.0
    return 1.0 - exp(_log_choose(total - size, train) - _log_choose(total - 1, train))


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
