"""Local files that a job reads: their content is part of what the job is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import fields
from typing import Any

from sizewise.config.data import SOURCES, SourceConfig
from sizewise.data.content import content_hash

KNOWN = frozenset(field.name for field in fields(SourceConfig))


def pinned(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration in which every local data file is named with its content.

    So a file that was changed makes another job, and a queued job refuses a file that is no
    longer the one it was planned with. A hash that is there already stays.
    """
    copy = deepcopy(dict(config))
    datasets = [copy.get("dataset"), *(copy.get("eval_dataset") or {}).values()]
    for source in (source for dataset in datasets for source in _sources(dataset)):
        if source.get("kind") in SOURCES and source.get("path") and not source.get("sha256"):
            source["sha256"] = content_hash(_typed(source))
    return copy


def _sources(dataset: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(dataset, dict):
        return
    if isinstance(dataset.get("source"), dict):
        yield dataset["source"]
    for part in (dataset.get("parts") or {}).values():
        yield from _sources(part)


def _typed(source: Mapping[str, Any]) -> SourceConfig:
    return SourceConfig(**{key: value for key, value in source.items() if key in KNOWN})
