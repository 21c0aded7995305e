"""Files that are there whole or not at all, whoever writes them and whenever that is killed."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


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
