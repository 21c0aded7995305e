"""Files of one format each: csv, Excel, json(l), parquet, sqlite; rows are read one at a time."""

from __future__ import annotations

import codecs
import csv
import importlib
import json
import marshal
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sizewise.config.data import SourceConfig
from sizewise.data.rows import sqlite
from sizewise.data.stored import Blobs
from sizewise.errors import DataError

Row = dict[str, Any]
Reading = Callable[[], Iterator[Row]]
"""Begins to read rows, from the first one, each time it is called."""
_FIELD_LIMIT = 2**31 - 1
PARQUET_BATCH = 1024
COMMA = ","
TABBED = (".tsv", ".tab")
EXCEL = (".xlsx", ".xlsm")
_SEP_LINE = re.compile(r"sep=(.)\s*", re.IGNORECASE)


def open_csv(path: Path, source: SourceConfig) -> Reading:
    """Open a file of UTF-8 text with a header, one mapping of texts per row.

    A first line ``sep=;`` names the sign between columns, as Excel writes it; a file ending in
    .tsv has tabs; one ending in .xlsx is read as what it is.

    Raises:
        DataError: a row or the header does not fit; the message names the line.
    """
    if path.suffix.lower() in EXCEL:
        return partial(iter, _read_excel(path, source))
    _check_bytes(path)
    return _unchanged(path, partial(_csv_rows, path, source))


def _unchanged(path: Path, read: Reading) -> Reading:
    """Read rows anew each time, and refuse those of another file than was there when it was opened.

    Raises:
        DataError: on reading: it was written to or replaced.
    """
    opened = _stamp(path)

    def reading() -> Iterator[Row]:
        yield from read()
        if _stamp(path) != opened:
            raise DataError(
                f"{path} was changed meanwhile: its rows are read twice. Start the command again."
            )

    return reading


def _stamp(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _csv_rows(path: Path, source: SourceConfig) -> Iterator[Row]:
    csv.field_size_limit(_FIELD_LIMIT)
    with path.open(encoding="utf-8-sig", newline="") as handle:
        first = handle.readline()
        said = _SEP_LINE.fullmatch(first)
        if said is None:
            handle.seek(0)
        delimiter = _delimiter(path, source, first, said[1] if said else None)
        reader = csv.reader(handle, delimiter=delimiter, strict=True)
        skipped = int(said is not None)
        try:
            header = next(reader, [])
            _check_header(path, header, delimiter)
            for cells in filter(None, reader):  # an empty line is no row
                if len(cells) != len(header):
                    raise DataError(
                        f"{path}, line {reader.line_num + skipped}: the row does not have "
                        f"{len(header)} fields like the header. Check the quotes "
                        f"and dataset.source.delimiter={delimiter!r}."
                    )
                yield dict(zip(header, cells, strict=True))
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num + skipped}: {error}.") from error


def _delimiter(path: Path, source: SourceConfig, first: str, said: str | None) -> str:
    """Return the configured sign, or where it is the default the one that the file tells."""
    if source.delimiter != COMMA:
        return source.delimiter.replace("\\t", "\t")  # as it is typed on a command line
    if said is not None:
        return said
    return "\t" if path.suffix.lower() in TABBED and "\t" in first else COMMA


def _read_excel(path: Path, source: SourceConfig) -> list[Row]:
    """Read the sheet ``source.table`` of an Excel file, or its only one; row 1 is the header."""
    try:
        openpyxl = importlib.import_module("openpyxl")
    except ImportError as error:
        raise DataError(
            f"{path} is an Excel file, which needs the package openpyxl. Install it (pip install "
            "openpyxl), or save the sheet as CSV (UTF-8)."
        ) from error
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        cells = [list(row) for row in _sheet(book, path, source.table).iter_rows(values_only=True)]
        book.close()
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not a readable Excel file (.xlsx): {error}.") from error
    filled = [row for row in cells if any(cell not in (None, "") for cell in row)]
    header = [str(cell) if cell is not None else "" for cell in (filled[0] if filled else [])]
    while header and not header[-1]:
        header.pop()
    _check_header(path, header, source.delimiter)
    return [dict(zip(header, row, strict=False)) for row in filled[1:]]


def _sheet(book: Any, path: Path, table: str | None) -> Any:
    names = list(book.sheetnames)
    name = table or (names[0] if len(names) == 1 else None)
    if name not in names:
        raise DataError(
            f"{path}: dataset.source.table={table!r} does not name one of its sheets: "
            f"{', '.join(names)}."
        )
    return book[name]


def _check_header(path: Path, columns: Sequence[str], delimiter: str) -> None:
    """Refuse a header that another sign separates, and one that names a column twice."""
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path} has more than one column {twice!r}. Give each a name of its own.")
    signs = [sign for sign in ";\t|," if len(columns) == 1 and sign in columns[0]]
    if signs:
        sign = signs[0].replace("\t", "\\t")
        raise DataError(
            f"{path} has one column, {columns[0]!r}. If its columns are separated otherwise, set "
            f"'dataset.source.delimiter=\"{sign}\"' (now {delimiter!r})."
        )


def _check_bytes(path: Path) -> None:
    """Refuse what is no UTF-8 text by its first bytes, and say what it is.

    Raises:
        DataError: the file is UTF-16 or UTF-32, or a spreadsheet.
    """
    with path.open("rb") as handle:
        start = handle.read(1000)
    if start.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise DataError(
            f"{path} is a spreadsheet or an archive, not text. Save it as CSV (UTF-8), or give an "
            "Excel file its ending .xlsx."
        )
    few = len(start) // 4
    wide = {
        "UTF-32": start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)),
        "UTF-16": start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)),
        "UTF-16LE": start[1::2].count(0) > few,
        "UTF-16BE": start[::2].count(0) > few,
    }
    name = next((name for name, found in wide.items() if found), None)
    if name is not None:
        raise DataError(
            f"{path} is {name} and not UTF-8 text. Convert it: iconv -f {name} -t UTF-8 FILE > NEW."
        )


def open_json(path: Path, source: SourceConfig) -> Reading:
    """Open JSON lines, or read a document: a list of objects, or an object that holds one."""
    _check_bytes(path)
    lines = _json_lines(path)
    first, second = next(lines, None), next(lines, None)
    if first is None:
        return partial(iter, [])
    number, line = first
    if line.lstrip().startswith("["):
        text = path.read_text(encoding="utf-8-sig")
        return partial(iter, list(_records(_parse(text, path, 1), path)))
    if second is not None and line.strip() == "{":
        return partial(iter, _single_list(_parse(path.read_text("utf-8-sig"), path, 1), path))
    if second is None and isinstance(record := _parse(line, path, number), dict):
        return partial(iter, _single_list(record, path))
    return _unchanged(path, partial(_line_records, path))


def _line_records(path: Path) -> Iterator[Row]:
    return _records((_parse(line, path, number) for number, line in _json_lines(path)), path)


def _json_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, with their numbers; any sign of a new line ends one."""
    number = begin = 0
    with path.open("rb") as handle:
        for raw in handle:
            raw = raw.removeprefix(codecs.BOM_UTF8) if not begin else raw
            try:
                text = raw.decode()
            except UnicodeDecodeError as error:
                start, end = error.start + begin, error.end + begin
                raise UnicodeDecodeError("utf-8", raw, start, end, error.reason) from error
            begin += len(raw)
            for line in (
                text.replace("\r\n", "\n").removesuffix("\n").replace("\r", "\n").split("\n")
            ):
                number += 1
                if line.strip():
                    yield number, line


def _parse(text: str, path: Path, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {line + error.lineno - 1}: not valid JSON ({error.msg}). "
            "Give JSON lines, or one JSON list of objects."
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}, line {line}: cannot be read as JSON ({error}).") from error


def _single_list(document: Any, path: Path) -> list[Row]:
    """Return the one list of objects of a document such as {"data": [...]}, else the document."""
    values = document.values() if isinstance(document, dict) else ()
    lists = [v for v in values if isinstance(v, list) and v and isinstance(v[0], dict)]
    rows_inside = len(lists) == 1 and len(document) == 1
    return list(_records(lists[0] if rows_inside else [document], path))


def _records(values: Iterable[Any], path: Path) -> Iterator[Row]:
    for number, value in enumerate(values, 1):
        if not isinstance(value, dict):
            raise DataError(
                f"{path}: record {number} is {type(value).__name__}, not an object with columns."
            )
        yield value


def open_parquet(path: Path, source: SourceConfig) -> Reading:
    return _unchanged(path, partial(_parquet_rows, path))


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=PARQUET_BATCH):
                yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}.") from error


def open_sqlite(path: Path, source: SourceConfig) -> Reading:
    """Read the rows once and keep them: a query may sample or take long, and others may write."""
    kept = Blobs()
    columns: list[str] = []
    for row in sqlite.read_rows(path, source.table, source.query):
        columns = columns or list(row)
        kept.add(marshal.dumps(list(row.values())))
    kept.flush()

    def reading() -> Iterator[Row]:
        for place in range(len(kept)):
            yield dict(zip(columns, marshal.loads(kept[place]), strict=True))  # our own

    return reading
