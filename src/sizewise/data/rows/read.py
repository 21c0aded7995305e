"""Rows from where they are kept: embedded, hub, csv, json(l), parquet; a hash of local files."""

from __future__ import annotations

import glob
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from sizewise.config.data import KNOWN_SPLITS, SOURCES, SPLIT_COLUMN, SourceConfig
from sizewise.data.rows import formats, hub
from sizewise.data.rows.columns import with_fields
from sizewise.data.rows.formats import EXCEL, TABBED, Reading, Row
from sizewise.data.rows.stream import Rows
from sizewise.errors import DataError
from sizewise.files import file_hash, hash_text, refuse_changed

log = logging.getLogger(__name__)


EMBEDDED = ("icd10_dialogues",)
EXTENSIONS = {
    ".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet", ".db": "sqlite",
    ".sqlite": "sqlite", ".sqlite3": "sqlite", **dict.fromkeys((*TABBED, *EXCEL), "csv"),
}  # fmt: skip


def read_rows(source: SourceConfig) -> list[Row]:
    """Read all rows of a source into memory.

    Returns:
        One mapping per row, in the source's order; files of a glob in the order of their names.

    Raises:
        DataError: the source is missing, unreadable or empty; the message says what to do.
    """
    return list(_open(source)())


def stream_rows(source: SourceConfig) -> Rows:
    """Return the rows of a source, of which one at a time is in memory.

    Excel sheets, JSON documents (not JSON lines) and embedded rows are in memory as a whole; those
    of SQLite are read once and kept in a temporary file where they are many.

    Raises:
        DataError: as ``read_rows``; when rows are read again also that a file was changed.
    """
    return Rows(_open(source))


def _open(source: SourceConfig) -> Reading:
    if source.kind == "mixture":
        raise DataError("A mixture has no rows of its own: its parts are read one by one.")
    parts: list[tuple[SourceConfig, str | None, Reading]] = []
    for split, part in source.by_split():
        if split is not None and not is_local_file(part):
            raise DataError(
                f"dataset.source.path names no file for {split}: {part.path!r} (looked in "
                f"{Path.cwd()})."
            )
        parts.append((part, split, _OPENERS[kind_of(part)](part)))

    def read() -> Iterator[Row]:
        for part, split, reading in parts:
            own = {} if split is None else {SPLIT_COLUMN: split}
            empty = True
            for row in map(with_fields, reading()):
                empty = False
                yield {**row, **own} if own else row
            if empty:
                raise DataError(f"dataset.source.path={part.path!r} holds no rows.")

    return read


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


def _open_embedded(source: SourceConfig) -> Reading:
    if source.path not in EMBEDDED:
        raise DataError(
            f"dataset.source.path={source.path!r} is not an embedded data set. "
            f"There is: {', '.join(EMBEDDED)}."
        )
    from sizewise.embedded.dialogues import generate_dialogues

    return partial(iter, [dict(row) for row in generate_dialogues()])


def _of_files(open_one: Callable[[Path, SourceConfig], Reading]) -> Callable[..., Reading]:
    """Make what opens one file open all files of a source."""

    def open_all(source: SourceConfig) -> Reading:
        paths = find_files(source.path)
        named = [path.name for path in paths if path.stem.casefold() in KNOWN_SPLITS]
        if len(named) > 1:
            log.warning(
                "The files %s are put together and divided anew. To keep them as splits, name one "
                "for each: 'dataset.source.path={train: FILE, test: FILE}'.",
                ", ".join(named),
            )
        readings: list[tuple[Path, Reading]] = []
        for path in paths:
            with _explained(path):
                readings.append((path, open_one(path, source)))
        return lambda: (row for path, reading in readings for row in _guarded(path, reading))

    return open_all


def _guarded(path: Path, reading: Reading) -> Iterator[Row]:
    with _explained(path):
        yield from reading()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Say of a file that is no text, or out of reach, what it is."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}). Convert it (from "
            "Windows: iconv -f CP1252 -t UTF-8 FILE > NEW), or choose the right "
            "dataset.source.kind."
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


_OPENERS: dict[str, Callable[[SourceConfig], Reading]] = {
    "embedded": _open_embedded,
    "hub": hub.open_rows,
    "csv": _of_files(formats.open_csv),
    "json": _of_files(formats.open_json),
    "parquet": _of_files(formats.open_parquet),
    "sqlite": _of_files(formats.open_sqlite),
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
    refuse_changed(f"dataset.source.path={source.path!r}", source.sha256, found, DataError)
