"""Files that are there whole or not at all, and hashes by which damage to them is found."""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from sizewise.errors import SizewiseError


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` beside ``path``, flush it to the disk, and rename it into place."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def written_whole(path: Path, temporary: Path | None = None) -> Iterator[Path]:
    """Yield a name beside ``path`` to write to; then flush that file and rename it into place.

    Where anything fails, nothing is left behind. ``temporary``: the name, where only one process
    writes and what it leaves when it is killed has to be written over by the next.
    """
    temporary = temporary or temporary_beside(path)
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


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


def key_text(value: Any) -> str:
    """A text that is equal where two values are, in whatever order their keys stand.

    What JSON does not know stands as its ``str``. Hashes of it are on record: it stays as it is.
    """
    return json.dumps(value, sort_keys=True, default=str)


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
    read = _kept if settled(stat) else _kept.__wrapped__
    return read(path, stat.st_size, stat.st_mtime_ns, sampled)


def settled(stat: os.stat_result) -> bool:
    """Whether a file of equal size and time is equal.

    One that changed just now may change again within the same tick of the file system's clock.
    """
    return time.time_ns() - stat.st_mtime_ns > SETTLED_NS


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


SEAL = "sha256"


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record of plain values with the hash of its content."""
    return {**record, SEAL: _content_hash(record)}


def unsealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record without its hash; one that was written before there were any has none.

    Raises:
        ValueError: it does not hold what was written.
    """
    content = {key: value for key, value in record.items() if key != SEAL}
    if SEAL in record and record[SEAL] != _content_hash(content):
        raise ValueError("its content is not what was written")
    return content


def _content_hash(record: Mapping[str, Any]) -> str:
    # Read back first: keys are texts then, and in the order in which they will be read.
    plain = json.loads(json.dumps(record, default=str))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def zip_damage(path: Path) -> str | None:
    """Say what is wrong with an archive by the checksums of its parts; None if it is whole."""
    try:
        with zipfile.ZipFile(path) as archive:
            part = archive.testzip()
    except Exception as error:  # whatever a flipped bit makes of it
        return str(error) or type(error).__name__
    return None if part is None else f"its part {part} does not fit its checksum"


# Records nest about ten levels; what copies or compares them recurses, up to Python's limit.
DEEPEST = 100
_NESTS = (dict, list)


def parse_json(text: str | bytes) -> Any:
    """Parse JSON; ValueError for whatever is wrong with it, also if it is nested too deeply."""
    too_deep = f"it is nested more than {DEEPEST} levels deep"
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError(too_deep) from error
    level = [value]
    for _ in range(DEEPEST):
        inner = (v.values() if isinstance(v, dict) else v for v in level if isinstance(v, _NESTS))
        level = list(chain.from_iterable(inner))
        if not level:
            return value
    raise ValueError(too_deep)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the record in ``path``; None where there is none or it is torn."""
    try:
        record = parse_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write ``record`` atomically, creating the folder where needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(record, indent=2, ensure_ascii=False, default=str))


def append_durably(path: Path, lines: str, keep_torn: bool = False) -> None:
    """Write whole lines at the end of a file, creating it, and wait until they are on the disk.

    A last line without its newline was torn by a kill or a full disk. It is cut off, so nobody
    else may be writing to the file; ``keep_torn``: it stays, on a line of its own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as handle:
        if _is_torn(handle):
            if keep_torn:
                lines = f"\n{lines}"
            else:
                handle.seek(0)
                handle.truncate(len(whole_part(handle.read())))
        handle.write(lines.encode())
        handle.flush()
        os.fsync(handle.fileno())


def _is_torn(handle: BinaryIO) -> bool:
    if handle.seek(0, os.SEEK_END) == 0:
        return False
    handle.seek(-1, os.SEEK_END)
    return handle.read(1) != b"\n"


def whole_part(data: bytes) -> bytes:
    """Return what stands up to and including the last newline."""
    return data[: data.rfind(b"\n") + 1]


def whole_lines(data: bytes) -> list[bytes]:
    """Return the lines that end with a newline, without it; a torn last line is left out."""
    return data.split(b"\n")[:-1]


def refuse_changed(
    what: str, planned: str | None, found: str | None, error: type[SizewiseError]
) -> None:
    """Raise ``error`` if the files that ``what`` names have another hash than when planned.

    A hash that is None or empty is not known, and refuses nothing.
    """
    if planned and found and planned != found:
        raise error(
            f"{what} holds something else ({found}) than when this run was planned ({planned}). "
            "Start the command again: with a changed file it is another run. The old run needs "
            "the old file."
        )


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
