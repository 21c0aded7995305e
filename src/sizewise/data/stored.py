"""Examples of which only numbers are in memory: what they say is read when one is looked at."""

from __future__ import annotations

import io
import marshal
import os
import tempfile
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sizewise.data.example import Example, Examples, Message, as_json
from sizewise.data.splits.groups import Groups, KeyColumns
from sizewise.errors import DataError

MOST_IN_MEMORY = 2**27
"""Bytes of a store that are kept in memory; all of a larger one lies in a temporary file."""
MOST_SHARED = 1024


class Blobs:
    """Byte strings, written one after the other and then read in any order.

    Raises:
        DataError: the folder for temporary files takes no more.
    """

    def __init__(self) -> None:
        self._memory = io.BytesIO()
        self._file: IO[bytes] | None = None
        self._ends = array("q", [0])

    def add(self, blob: bytes) -> None:
        with _room_explained():
            (self._file or self._memory).write(blob)
            self._ends.append(self._ends[-1] + len(blob))
            if self._file is None and self._ends[-1] > MOST_IN_MEMORY:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as this
                self._file.write(self._memory.getbuffer())
                self._memory = io.BytesIO()

    def flush(self) -> None:
        """Make all that was added readable."""
        if self._file is not None:
            with _room_explained():
                self._file.flush()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, place: int) -> bytes:
        start, end = self._ends[place], self._ends[place + 1]
        if self._file is None:
            return bytes(self._memory.getbuffer()[start:end])
        return os.pread(self._file.fileno(), end - start, start)


@contextmanager
def _room_explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"The data does not fit into {tempfile.gettempdir()}, the folder for temporary files "
            f"({error.strerror or error}). Set TMPDIR to a folder with as much room as the data "
            "takes."
        ) from error


class ExampleStore:
    """Takes examples one by one, and gives them back as a sequence."""

    def __init__(self) -> None:
        self._blobs = Blobs()
        self._leads: dict[Any, int] = {}
        self._shared: list[Message] = []
        self._contents, self._origins, self._tellings = array("Q"), array("Q"), array("Q")
        self._keys = KeyColumns()

    def add(self, example: Example, telling: str) -> None:
        """Add an example without a group.

        ``telling``: hash that takes the place of its ``origin`` where examples of one origin have
        different ones.
        """
        turns = tuple(map(self._turn, example.messages))
        parts = (turns, example.answer, example.keys, dict(example.meta))
        self._blobs.add(marshal.dumps(parts))
        self._contents.append(int(example.content_id, 16))
        self._origins.append(int(example.origin, 16))
        self._tellings.append(int(telling, 16))
        self._keys.add(example.keys)

    def _turn(self, message: Message) -> int | tuple[str, str, dict[str, Any], int]:
        """Return what is written of a message: a number for what stands before many prompts."""
        turn = (message.role, message.content, dict(message.extra), message.weight)
        if not message.leads:
            return turn
        key = (*turn[:2], as_json(turn[2]), message.weight)
        if key not in self._leads:
            if len(self._shared) == MOST_SHARED:
                return turn
            self._leads[key] = len(self._shared)
            self._shared.append(message)
        return self._leads[key]

    def finish(self) -> StoredExamples:
        self._blobs.flush()
        contents, origins, tellings = (
            np.frombuffer(own, dtype=np.uint64)
            for own in (self._contents, self._origins, self._tellings)
        )
        told = _where_others(origins, tellings)
        columns = Columns(
            self._blobs,
            tuple(self._shared),
            contents,
            np.where(told, tellings, origins),
            self._keys.connect(),
        )
        return StoredExamples(columns, np.arange(len(contents)))


def _where_others(origins: NDArray[np.uint64], tellings: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Say of each example whether another of its origin has a different telling."""
    order = np.lexsort((tellings, origins))
    same = np.diff(origins[order]) == 0
    differ = same & (np.diff(tellings[order]) != 0)
    several = np.isin(origins, origins[order][1:][differ])
    found: NDArray[np.bool_] = several
    return found


@dataclass(frozen=True)
class Columns:
    """What is kept of examples; all but ``blobs`` and ``shared`` are arrays with one entry each.

    Attributes:
        blobs: turns, answer, keys and meta data of each.
        shared: messages that blobs name by their number.
        contents: ``content_id`` as a number.
        origins: ``origin`` as a number.
    """

    blobs: Blobs
    shared: tuple[Message, ...]
    contents: NDArray[np.uint64]
    origins: NDArray[np.uint64]
    groups: Groups


class StoredExamples(Examples):
    """Examples of a store, in the order of ``rows``."""

    def __init__(self, columns: Columns, rows: NDArray[np.int64]) -> None:
        self._columns, self._rows = columns, rows

    def __len__(self) -> int:
        return len(self._rows)

    def make(self, place: int) -> Example:
        columns, row = self._columns, int(self._rows[place])
        turns, answer, keys, meta = marshal.loads(columns.blobs[row])  # our own
        messages = tuple(
            columns.shared[turn] if isinstance(turn, int) else Message(*turn) for turn in turns
        )
        group = columns.groups.name(int(columns.groups.codes[row]))
        return Example(messages, answer, group, meta, f"{columns.origins[row]:016x}", keys)

    def select(self, rows: NDArray[np.int64]) -> StoredExamples:
        return StoredExamples(self._columns, self._rows[rows])

    def ids(self) -> Iterator[str]:
        return (f"{number:016x}" for number in self._columns.origins[self._rows])

    def content_ids(self) -> Iterator[str]:
        return (f"{number:016x}" for number in self._columns.contents[self._rows])

    def groups(self) -> Iterator[str]:
        groups = self._columns.groups
        return (groups.name(int(code)) for code in groups.codes[self._rows])

    def numbered_groups(self) -> tuple[object, NDArray[np.int64]] | None:
        return self._columns.groups, self._columns.groups.codes[self._rows]
