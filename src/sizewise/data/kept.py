"""The splits of recent data sets, kept in memory for the next job of the same process."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from sizewise.config.data import DatasetConfig
from sizewise.data.build import build_splits
from sizewise.data.example import DataSplits
from sizewise.data.sources import find_files
from sizewise.errors import DataError

KEPT = 4


@dataclass(frozen=True)
class _Request:
    """What is asked for. Two requests are equal if their keys are."""

    key: str
    cfg: DatasetConfig = field(compare=False)
    stand_in: bool = field(compare=False)


def kept_splits(cfg: DatasetConfig, stand_in: bool = False) -> DataSplits:
    """Return what ``build_splits`` gives, from memory where nothing changed since.

    A local file counts as changed when its size or its time of change is another one.

    Raises:
        DataError: as ``build_splits``.
    """
    settings = asdict(cfg)
    parts = [settings, stand_in, list(_stamps(settings))]
    return _build(_Request(json.dumps(parts, default=str), cfg, stand_in))


@lru_cache(maxsize=KEPT)
def _build(request: _Request) -> DataSplits:
    return build_splits(request.cfg, request.stand_in)


def _stamps(settings: Mapping[str, Any]) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of change of every local file that a data set or its parts name."""
    source = settings.get("source") or {}
    if source.get("kind") != "embedded" and source.get("path"):
        for path in _local(str(source["path"])):
            stat = path.stat()
            yield str(path), stat.st_size, stat.st_mtime_ns
    for part in (settings.get("parts") or {}).values():
        yield from _stamps(part)


def _local(pattern: str) -> list[Path]:
    try:
        return [path for path in find_files(pattern) if path.is_file()]
    except DataError:  # a hub id, or nothing there: reading it says so
        return []
