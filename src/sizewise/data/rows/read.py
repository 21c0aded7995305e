"""Rows from where they are kept: embedded, hub, csv, json(l), parquet; a hash of local files."""

from __future__ import annotations

import codecs
import csv
import glob
import importlib
import json
import logging
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from sizewise.config.data import KNOWN_SPLITS, SOURCES, SPLIT_COLUMN, SourceConfig
from sizewise.data.rows import hub, sqlite
from sizewise.errors import DataError
from sizewise.files import file_hash, hash_text

log = logging.getLogger(__name__)
Row = dict[str, Any]
_FIELD_LIMIT = 2**31 - 1


def read_csv(path: Path, source: SourceConfig) -> list[Row]:
    """Read a file of UTF-8 text with a header, one mapping of texts per row.

    A first line ``sep=;`` names the sign between columns, as Excel writes it; a file ending in
    .tsv has tabs; one ending in .xlsx is read as what it is.

    Raises:
        DataError: a row or the header does not fit; the message names the line.
    """
    if path.suffix.lower() in EXCEL:
        return _read_excel(path, source)
    _check_bytes(path)
    csv.field_size_limit(_FIELD_LIMIT)
    with path.open(encoding="utf-8-sig", newline="") as handle:
        first = handle.readline()
        said = _SEP_LINE.fullmatch(first)
        if said is None:
            handle.seek(0)
        delimiter = _delimiter(path, source, first, said[1] if said else None)
        reader = csv.DictReader(handle, delimiter=delimiter, strict=True)
        skipped = int(said is not None)
        try:
            _check_header(path, reader.fieldnames or [], delimiter)
            return [_whole_row(path, row, reader, delimiter, skipped) for row in reader]
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num + skipped}: {error}.") from error


def _whole_row(
    path: Path, row: Row, reader: csv.DictReader[str], delimiter: str, skipped: int
) -> Row:
    if None in row or None in row.values():
        raise DataError(
            f"{path}, line {reader.line_num + skipped}: the row does not have "
            f"{len(reader.fieldnames or [])} fields like the header. Check the quotes "
            f"and dataset.source.delimiter={delimiter!r}."
        )
    return dict(row)


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


EMBEDDED = ("icd10_dialogues",)
COMMA = ","
TABBED = (".tsv", ".tab")
EXCEL = (".xlsx", ".xlsm")
_SEP_LINE = re.compile(r"sep=(.)\s*", re.IGNORECASE)
EXTENSIONS = {
    ".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet", ".db": "sqlite",
    ".sqlite": "sqlite", ".sqlite3": "sqlite", **dict.fromkeys((*TABBED, *EXCEL), "csv"),
}  # fmt: skip


def read_rows(source: SourceConfig) -> list[Row]:
    """Read all rows of a source.

    Returns:
        One mapping per row, in the source's order; files of a glob in the order of their names.

    Raises:
        DataError: the source is missing, unreadable or empty; the message says what to do.
    """
    if source.kind == "mixture":
        raise DataError("A mixture has no rows of its own: its parts are read one by one.")
    found: list[Row] = []
    for split, part in source.by_split():
        if split is not None and not is_local_file(part):
            raise DataError(
                f"dataset.source.path names no file for {split}: {part.path!r} (looked in "
                f"{Path.cwd()})."
            )
        rows = _READERS[kind_of(part)](part)
        if not rows:
            raise DataError(f"dataset.source.path={part.path!r} holds no rows.")
        found += rows if split is None else [{**row, SPLIT_COLUMN: split} for row in rows]
    return found


def is_local_file(source: SourceConfig) -> bool:
    """Whether ``path`` names files of this machine: always, but for hub ids and embedded sets."""
    if source.kind != "hub":
        return source.kind not in ("embedded", "mixture")
    return all(Path(part.path).expanduser().is_file() for _, part in source.by_split())


def kind_of(source: SourceConfig) -> str:
    """Return how a source is read: a local file in a hub id's place goes by its extension.

    Of files for each split it is the kind of the first.

    Raises:
        DataError: the extension is not known.
    """
    source = source.by_split()[0][1]
    if source.kind != "hub" or not is_local_file(source):
        return source.kind
    suffix = Path(source.path).suffix.lower()
    if suffix not in EXTENSIONS:
        raise DataError(
            f"dataset.source.path={source.path!r}: files ending in {suffix or 'nothing'!r} are not "
            f"known. Known: {', '.join(EXTENSIONS)}; or set dataset.source.kind."
        )
    return EXTENSIONS[suffix]


def find_files(pattern: str) -> list[Path]:
    """Return the files that a path or a glob (``**`` included) names, sorted.

    Raises:
        DataError: there is none.
    """
    expanded = str(Path(pattern).expanduser())
    if Path(expanded).is_file():
        return [Path(expanded)]
    found = sorted(Path(name) for name in glob.glob(expanded, recursive=True))  # noqa: PTH207
    files = [path for path in found if path.is_file()]
    if not files:
        raise DataError(
            f"dataset.source.path={pattern!r}: no such file (looked in {Path.cwd()}). "
            "Give the path of a file, or a glob that matches some."
        )
    return files


def _read_embedded(source: SourceConfig) -> list[Row]:
    if source.path not in EMBEDDED:
        raise DataError(
            f"dataset.source.path={source.path!r} is not an embedded data set. "
            f"There is: {', '.join(EMBEDDED)}."
        )
    from sizewise.embedded.dialogues import generate_dialogues

    return [dict(row) for row in generate_dialogues()]


def _from_files(read: Callable[[Path, SourceConfig], list[Row]]) -> Callable[..., list[Row]]:
    """Make a reader of one file a reader of all files of a source."""

    def read_all(source: SourceConfig) -> list[Row]:
        paths = find_files(source.path)
        named = [path.name for path in paths if path.stem.casefold() in KNOWN_SPLITS]
        if len(named) > 1:
            log.warning(
                "The files %s are put together and divided anew. To keep them as splits, name one "
                "for each: 'dataset.source.path={train: FILE, test: FILE}'.",
                ", ".join(named),
            )
        return [row for path in paths for row in _guarded(read, path, source)]

    return read_all


def _guarded(
    read: Callable[[Path, SourceConfig], list[Row]], path: Path, source: SourceConfig
) -> list[Row]:
    try:
        return read(path, source)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}). Convert it (from "
            "Windows: iconv -f CP1252 -t UTF-8 FILE > NEW), or choose the right "
            "dataset.source.kind."
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


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


def _read_json(path: Path, source: SourceConfig) -> list[Row]:
    _check_bytes(path)
    text = path.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("["):
        return _records(_parse(text, path, 1), path)
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if len(lines) > 1 and lines[0][1].strip() == "{":
        return _single_list(_parse(text, path, 1), path)
    records = [_parse(line, path, number) for number, line in lines]
    if len(records) == 1 and isinstance(records[0], dict):
        return _single_list(records[0], path)
    return _records(records, path)


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
    return _records(lists[0] if rows_inside else [document], path)


def _records(values: Any, path: Path) -> list[Row]:
    for number, value in enumerate(values, 1):
        if not isinstance(value, dict):
            raise DataError(
                f"{path}: record {number} is {type(value).__name__}, not an object with columns."
            )
    return list(values)


def _read_parquet(path: Path, source: SourceConfig) -> list[Row]:
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        rows: list[Row] = parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}.") from error
    return rows


_READERS: dict[str, Callable[[SourceConfig], list[Row]]] = {
    "embedded": _read_embedded,
    "hub": hub.read_rows,
    "csv": _from_files(read_csv),
    "json": _from_files(_read_json),
    "parquet": _from_files(_read_parquet),
    "sqlite": _from_files(lambda path, source: sqlite.read_rows(path, source.table, source.query)),
}

KNOWN = frozenset(field.name for field in fields(SourceConfig))


def sources_of(dataset: Any) -> Iterator[dict[str, Any]]:
    """Yield the sources of a data set given as plain values, and of the parts of a mixture."""
    if not isinstance(dataset, dict):
        return
    if isinstance(dataset.get("source"), dict):
        yield dataset["source"]
    for part in (dataset.get("parts") or {}).values():
        yield from sources_of(part)


def plain_content_hash(source: Mapping[str, Any]) -> str | None:
    """``content_hash`` of a source given as plain values; None for one that is not whole."""
    if source.get("kind") not in SOURCES or not source.get("path"):
        return None
    return content_hash(SourceConfig(**{k: v for k, v in source.items() if k in KNOWN}))


def content_hash(source: SourceConfig) -> str | None:
    """Hash the files of a source, in the order of their names (16 hex digits).

    Files for each split count with the split's name. An embedded set has the hash that came with
    the package. None for what is no file of this machine, and where there is none: reading it
    says so.
    """
    if source.kind == "embedded":
        return _embedded_content(source)
    named = [(split, _files_of(part)) for split, part in source.by_split()]
    if not all(files for _, files in named):
        return None
    hashes = [
        text
        for split, files in named
        for text in ([] if split is None else [f"{split}:"]) + [file_hash(path) for path in files]
    ]
    return hash_text("".join(hashes), 16)


def _embedded_content(source: SourceConfig) -> str | None:
    """Return what the manifest beside the embedded models says of the rows (16 hex digits).

    Generating them would need the catalogue of codes, which takes a second to load.
    """
    if source.path not in EMBEDDED:
        return None
    manifest = files("sizewise.embedded").joinpath("models", "manifest.json")
    return str(json.loads(manifest.read_text(encoding="utf-8"))["data_fingerprint"])[:16]


def _files_of(source: SourceConfig) -> list[Path]:
    """Return the local files of a source with one path; none where it has none."""
    if source.kind == "hub" and hub.is_saved(source.path):
        return sorted(p for p in Path(source.path).expanduser().rglob("*") if p.is_file())
    try:
        return find_files(source.path) if is_local_file(source) else []
    except DataError:
        return []


def check_content(source: SourceConfig) -> None:
    """Raise DataError if the files are no longer those that ``source.sha256`` names."""
    found = content_hash(source) if source.sha256 else None
    if found is not None and found != source.sha256:
        raise DataError(
            f"dataset.source.path={source.path!r} holds something else ({found}) than when this "
            f"run was planned ({source.sha256}). Start the command again: with a changed file it "
            "is another run. The old run needs the old file."
        )
