"""Token ids of many examples in flat arrays, which may stay on the disk; lists only when read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import overload

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Encoded:
    """Token ids of one example; the answer's end with the end-of-turn token."""

    prompt_ids: list[int]
    answer_ids: list[int]

    @property
    def length(self) -> int:
        return len(self.prompt_ids) + len(self.answer_ids)


class TokenTable(Sequence[Encoded]):
    """Encoded examples, at four bytes a token.

    Args:
        ids: the tokens of prompt and answer of one example after the other: int32 [T].
        ends: where each prompt and each answer ends in them: int64 [N, 2].
        shortened: whether each prompt was cut: bool [N].
        rows: the examples that are meant, in order; None: all.
    """

    def __init__(
        self,
        ids: NDArray[np.int32],
        ends: NDArray[np.int64],
        shortened: NDArray[np.bool_],
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        self._ids, self._ends, self._shortened = ids, ends, shortened
        self._rows = np.arange(len(ends)) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> Encoded: ...
    @overload
    def __getitem__(self, place: slice) -> TokenTable: ...
    def __getitem__(self, place: int | slice) -> Encoded | TokenTable:
        if isinstance(place, slice):
            return self.select(self._rows[place])
        row = int(self._rows[place])
        start = int(self._ends[row - 1, 1]) if row else 0
        middle, end = (int(value) for value in self._ends[row])
        return Encoded(self._ids[start:middle].tolist(), self._ids[middle:end].tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenTable) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    @property
    def prompt_lengths(self) -> NDArray[np.int64]:
        starts = np.concatenate([[0], self._ends[:-1, 1]])
        lengths: NDArray[np.int64] = (self._ends[:, 0] - starts)[self._rows]
        return lengths

    @property
    def answer_lengths(self) -> NDArray[np.int64]:
        lengths: NDArray[np.int64] = (self._ends[:, 1] - self._ends[:, 0])[self._rows]
        return lengths

    @property
    def shortened(self) -> NDArray[np.bool_]:
        cut: NDArray[np.bool_] = self._shortened[self._rows]
        return cut

    def where(self, wanted: Sequence[bool] | NDArray[np.bool_]) -> TokenTable:
        return self.select(self._rows[np.asarray(wanted, dtype=np.bool_)])

    def select(self, rows: NDArray[np.int64]) -> TokenTable:
        return TokenTable(self._ids, self._ends, self._shortened, rows)


Part = tuple[Sequence[Sequence[int]], Sequence[Sequence[int]], Sequence[bool]]
"""Prompts, answers and whether each prompt was cut, of some examples."""


def flat_part(part: Part) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.bool_]]:
    """Return the arrays of ``TokenTable`` for some examples, with ends that count from 0."""
    prompts, answers, shortened = part
    rows = list(chain.from_iterable(zip(prompts, answers, strict=True)))
    ends = np.cumsum([len(row) for row in rows], dtype=np.int64).reshape(-1, 2)
    total = int(ends[-1, 1]) if rows else 0
    ids = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=total)
    return ids, ends, np.asarray(shortened, dtype=np.bool_)


def make_table(parts: Iterable[Part]) -> TokenTable:
    """Put the examples of all parts into one table in memory."""
    ids: list[NDArray[np.int32]] = [np.empty(0, np.int32)]
    ends: list[NDArray[np.int64]] = [np.empty((0, 2), np.int64)]
    cut: list[NDArray[np.bool_]] = [np.empty(0, np.bool_)]
    total = 0
    for part in parts:
        own, places, shortened = flat_part(part)
        ids.append(own)
        ends.append(places + total)
        cut.append(shortened)
        total += len(own)
    return TokenTable(np.concatenate(ids), np.concatenate(ends), np.concatenate(cut))


def table_of(items: Sequence[Encoded]) -> TokenTable:
    """Return encoded examples as a table; one is returned as it is."""
    if isinstance(items, TokenTable):
        return items
    prompts, answers = [i.prompt_ids for i in items], [i.answer_ids for i in items]
    return make_table([(prompts, answers, [False] * len(items))] if items else [])
