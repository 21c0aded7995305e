"""What local files of a data set hold, as a hash: a changed file is another data set."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from sizewise.config.data import SourceConfig
from sizewise.data.sources import find_files, is_local_file
from sizewise.errors import DataError


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
    hashes = [_hash(path, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
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


@lru_cache(maxsize=256)
def _hash(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
