"""SQLite: rows of a table or query, and a file of the splits that people can query."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sizewise.config.data import SPLITS
from sizewise.data.example import DataSplits, Example
from sizewise.errors import DataError
from sizewise.files import temporary_beside

TABLE = "examples"
COLUMNS = (
    "id", "split", "position", "group_id", "system", "history", "prompt", "answer", "meta"
)  # fmt: skip
READS = (
    sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE
)  # fmt: skip
# What json_each and full-text search ask for when they are opened; mode=ro lets none of it write.
OF_VIRTUAL_TABLES = (
    (sqlite3.SQLITE_UPDATE, "sqlite_master"),
    (sqlite3.SQLITE_PRAGMA, "data_version"),
    (sqlite3.SQLITE_PRAGMA, "page_size"),
)
# Instructions of SQLite's machine, about ten a row and one a column: millions of rows.
MAX_STEPS = 200_000_000
STEPS_A_LOOK = 100_000


def read_rows(path: Path, table: str | None, query: str | None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table or the result of a query; the file is opened read-only.

    Without both, the only table of the file is read. The query may be of somebody's record: it may
    read this file and nothing else, and ends after ``MAX_STEPS``.

    Raises:
        DataError: the file is not SQLite, table and query do not fit it, or the query does
            something else than read, or has no end.
    """
    uri = f"file:{quote(str(path.resolve()))}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            _only_read(connection)
            connection.row_factory = sqlite3.Row
            statement = query or f"SELECT * FROM {_quoted(_table(connection, path, table))}"
            yield from map(dict, connection.execute(statement))
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise DataError(f"{path}: {_reason(error)}") from error


def _only_read(connection: sqlite3.Connection) -> None:
    """Refuse every statement but a SELECT, also those that write elsewhere (VACUUM INTO, ATTACH).

    ``mode=ro`` keeps only the file itself as it is.
    """
    looks = count(1)

    def allow(action: int, name: str | None, value: str | None, *_: str | None) -> int:
        loads = action == sqlite3.SQLITE_FUNCTION and str(value).lower() == "load_extension"
        reads = action in READS and not loads
        asked = value if action == sqlite3.SQLITE_PRAGMA else None
        virtual = (action, name) in OF_VIRTUAL_TABLES and asked is None
        return sqlite3.SQLITE_OK if reads or virtual else sqlite3.SQLITE_DENY

    connection.set_authorizer(allow)
    every = min(STEPS_A_LOOK, MAX_STEPS)
    connection.set_progress_handler(lambda: next(looks) * every > MAX_STEPS, every)


def _reason(error: Exception) -> str:
    code = getattr(error, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_INTERRUPT:
        return (
            f"dataset.source.query was stopped after {MAX_STEPS:,} steps of SQLite: it has no end, "
            "or reads too much. Narrow it, or store its result as a table."
        )
    if code == sqlite3.SQLITE_AUTH or "not authorized" in str(error):
        return (
            f"dataset.source.query may only read this file, which is opened readonly ({error}). "
            "Give one SELECT, without ATTACH, VACUUM, PRAGMA or anything that writes."
        )
    return (
        f"{error}. Check that it is a SQLite file, and dataset.source.table or "
        "dataset.source.query (files are opened read-only)."
    )


def _table(connection: sqlite3.Connection, path: Path, table: str | None) -> str:
    found = connection.execute(
        "SELECT name FROM sqlite_master "
        "WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'"
    )
    names = [str(row[0]) for row in found]
    if table is None and len(names) == 1:
        return names[0]
    if table is None or table not in names:
        raise DataError(
            f"{path}: dataset.source.table={table!r} does not name one of its tables: "
            f"{', '.join(names) or 'it has none'}."
        )
    return table


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def write_splits(splits: DataSplits, path: Path) -> None:
    """Write the three splits as the table ``examples``, one row per example.

    ``history`` (JSON, earlier turns) and ``meta`` (JSON) may be queried with SQLite's JSON
    functions. The file is written beside its place and moved there, so that it is whole or absent.
    The sqlite source reads it back (option ``dataset=sqlite``).

    Raises:
        DataError: the file cannot be written.
    """
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        with closing(sqlite3.connect(temporary)) as connection, connection:
            kinds = {"position": "INTEGER"}
            columns = ", ".join(f"{n} {kinds.get(n, 'TEXT')} NOT NULL" for n in COLUMNS)
            connection.execute(f"CREATE TABLE {TABLE} ({columns})")
            connection.execute(f"CREATE INDEX by_split ON {TABLE} (split, position)")
            places = ", ".join("?" * len(COLUMNS))
            connection.executemany(f"INSERT INTO {TABLE} VALUES ({places})", _records(splits))
        temporary.replace(path)
    except (OSError, sqlite3.Error) as error:
        raise DataError(f"The splits cannot be written to {path}: {error}.") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _records(splits: DataSplits) -> Iterator[tuple[Any, ...]]:
    for split in SPLITS:
        for position, example in enumerate(getattr(splits, split)):
            yield _record(split, position, example)


def _record(split: str, position: int, example: Example) -> tuple[Any, ...]:
    turns = list(example.messages)
    system = turns.pop(0).content if turns and turns[0].role == "system" else ""
    prompt = turns.pop().content if turns[-1].role == "user" else ""
    history = json.dumps([turn.as_dict() for turn in turns], ensure_ascii=False)
    meta = json.dumps(dict(example.meta), ensure_ascii=False, sort_keys=True)
    return (
        example.id, split, position, example.group, system, history, prompt, example.answer, meta
    )  # fmt: skip
