"""What local files of a data set hold, as a hash: a changed file is another data set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from sizewise.config.data import SOURCES, SourceConfig
from sizewise.data.sources import find_files, is_local_file
from sizewise.errors import DataError
from sizewise.file_hash import file_hash

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

    None for what is no file of this machine, and where there is none: reading it says so.
    """
    if not is_local_file(source):
        return None
    try:
        files = find_files(source.path)
    except DataError:
        return None
    hashes = [file_hash(path) for path in files]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]


def check_content(source: SourceConfig) -> None:
    """Raise DataError if the files are no longer those that ``source.sha256`` names."""
    found = content_hash(source) if source.sha256 else None
    if found is not None and found != source.sha256:
        raise DataError(
            f"dataset.source.path={source.path!r} holds something else ({found}) than when this "
            f"run was planned ({source.sha256}). Start the command again: with a changed file it "
            "is another run. The old run needs the old file."
        )
