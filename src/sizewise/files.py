"""Files that are there whole or not at all, and what a file holds as a hash."""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from functools import lru_cache
from pathlib import Path
from typing import Any


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` beside ``path``, flush it to the disk, and rename it into place."""
    temporary = temporary_beside(path)
    with temporary.open("w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(path)


def temporary_beside(path: Path) -> Path:
    """Return a new hidden name in the folder of ``path``.

    A process id would not do: containers that share a disk often have the same ones.
    """
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")


WHOLE_FILE_BYTES = 256 * 2**20
BLOCK_BYTES = 64 * 2**10
BLOCKS = 1024
# Coarser than the time stamps of any file system in use (FAT: two seconds).
SETTLED_NS = 3_000_000_000


def hash_text(text: str, digits: int = 64) -> str:
    """Return the first hexadecimal digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def file_hash(path: Path, sampled: bool = False) -> str:
    """Return the SHA-256 of a file, from memory if it is as it was then.

    ``sampled``: of a file above 256 MiB, hash 1,024 evenly spaced blocks of 64 KiB. That keeps the
    hash of a 16 GB base below a second; two fine-tuned versions of a model differ nearly
    everywhere, so that no block in a thousand would be equal by chance.
    """
    stat = path.stat()
    # One that changed just now may change again within the same tick of the file system's clock.
    settled = time.time_ns() - stat.st_mtime_ns > SETTLED_NS
    read = _kept if settled else _kept.__wrapped__
    return read(path, stat.st_size, stat.st_mtime_ns, sampled)


@lru_cache(maxsize=1024)
def _kept(path: Path, size: int, changed_ns: int, sampled: bool) -> str:
    with path.open("rb") as handle:
        if not sampled or size <= WHOLE_FILE_BYTES:
            return hashlib.file_digest(handle, "sha256").hexdigest()
        digest = hashlib.sha256()
        for i in range(BLOCKS):
            handle.seek((size - BLOCK_BYTES) * i // (BLOCKS - 1))
            digest.update(handle.read(BLOCK_BYTES))
        return digest.hexdigest()


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the record in ``path``; None where there is none or it is torn."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write ``record`` atomically, creating the folder where needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(record, indent=2, ensure_ascii=False, default=str))


def tail(path: Path, lines: int = 1, chunk: int = 16_384) -> list[str]:
    """Return the last ``lines`` whole lines of a text file, reading at most ``chunk`` bytes."""
    try:
        with path.open("rb") as handle:
            size = handle.seek(0, 2)
            handle.seek(max(0, size - chunk))
            text = handle.read().decode("utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return []
    return text.splitlines()[-lines:]
