"""Rows that are read as often as they are looked at, and what one look at all of them tells."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from sizewise.config.data import SPLIT_COLUMN
from sizewise.data.rows.columns import as_integer
from sizewise.data.rows.conversation import is_conversation
from sizewise.errors import DataError

Row = Mapping[str, Any]
SPLIT_NAMES = (SPLIT_COLUMN, "split")


class Rows:
    """Rows of a source, of which one at a time is in memory.

    All of them are looked at once on construction, so that whatever is wrong with a row is said
    then.

    Args:
        read: begins to read the rows, from the first one, each time it is called.

    Attributes:
        columns: the names that occur in any row, in order of appearance.
        whole: the columns of integers that gaps turned into 1.0, 2.0, …: tables that know no
            missing integers write them so. Such a column has a gap, and nothing but whole numbers
            with a point and a zero.
        spoken: the columns of which a cell holds turns.
        splits: the texts of columns that are named as a source's own split.
    """

    def __init__(self, read: Callable[[], Iterator[Row]]) -> None:
        self._read = read
        self.columns: list[str] = []
        self.spoken: set[str] = set()
        self.splits: dict[str, set[str]] = {name: set() for name in SPLIT_NAMES}
        self._count = 0
        numbers: dict[str, tuple[int, int]] = {}
        known: set[str] = set()
        for row in read():
            if not known.issuperset(row):
                self._add_columns(row, known, numbers)
            self._look(row, numbers)
            self._count += 1
        self.whole = [name for name, (gaps, whole) in numbers.items() if gaps and whole]

    @classmethod
    def of(cls, rows: Rows | Sequence[Row]) -> Rows:
        """Return rows that are in memory as such; ``Rows`` are returned as they are."""
        return rows if isinstance(rows, Rows) else cls(lambda: iter(rows))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Row]:
        """Read the rows again.

        Raises:
            DataError: there are more or fewer than at the first look.
        """
        found = 0
        for row in self._read():
            found += 1
            yield row
        if found != self._count:
            raise DataError(
                f"The data had {self._count} rows, and {found} when they were read again: it was "
                "changed meanwhile. Start the command again."
            )

    def first(self, count: int) -> list[Row]:
        return list(islice(self._read(), count))

    def _add_columns(self, row: Row, known: set[str], numbers: dict[str, tuple[int, int]]) -> None:
        new = [name for name in row if name not in known]
        self.columns += new
        known.update(new)
        numbers.update(dict.fromkeys(new, (self._count, 0)))

    def _look(self, row: Row, numbers: dict[str, tuple[int, int]]) -> None:
        for name, cell in row.items():
            if (
                isinstance(cell, (list, tuple))
                and name not in self.spoken
                and is_conversation(cell)
            ):
                self.spoken.add(name)
        for name in SPLIT_NAMES:
            if isinstance(cell := row.get(name), str):
                self.splits[name].add(cell)
        for name, (gaps, whole) in list(numbers.items()):
            cell = row.get(name)
            if cell is None or cell == "" or cell != cell:
                numbers[name] = gaps + 1, whole
            elif as_integer(cell) is not cell:
                numbers[name] = gaps, whole + 1
            else:
                del numbers[name]
