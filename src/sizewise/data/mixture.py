"""Several data sets merged into one, their groups kept apart across splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sizewise.config.data import DatasetConfig
from sizewise.data.example import DataReport, DataSplits, Example
from sizewise.data.groups import rank, text_key
from sizewise.data.leaks import shared_groups
from sizewise.data.tokenizer_hash import hash_parts
from sizewise.errors import ConfigError, DataError

Build = Callable[[DatasetConfig], DataSplits]


def build_mixture(cfg: DatasetConfig, build: Build) -> DataSplits:
    """Build every part by its own configuration (limits and split included) and merge them.

    Each example carries the stratum ``part``, which is part of its ``id`` too. A training example
    whose question or row is held out by any part, and a validation example whose question or row
    is tested by any, are left out and counted as ``held_out_by_another_part``. The mixture's own
    size limits apply after merging.

    Raises:
        DataError: there are no parts, or a part cannot be built.
        ConfigError: a part is not a valid data set configuration.
    """
    if not cfg.parts:
        raise DataError("dataset.parts is empty: a mixture needs at least one data set in it.")
    built = {name: build(part_config(name, part)) for name, part in cfg.parts.items()}
    test = _merge(built, "test")
    held = _keys(test)
    validation = [e for e in _merge(built, "validation") if held.isdisjoint(_keys([e]))]
    held |= _keys(validation)
    train = [e for e in _merge(built, "train") if held.isdisjoint(_keys([e]))]
    lost = sum(len(s.train) + len(s.validation) for s in built.values())
    lost -= len(train) + len(validation)
    parts = {"train": train, "validation": validation, "test": test}
    limits = {"train": cfg.max_train, "validation": cfg.max_validation, "test": cfg.max_test}
    kept = {name: _ordered(rows, cfg.split.seed)[: limits[name]] for name, rows in parts.items()}
    kept = {name: tuple(_with_own_id(e) for e in rows) for name, rows in kept.items()}
    report = _report(built, lost, shared_groups(kept))
    return DataSplits(kept["train"], kept["validation"], kept["test"], report)


def part_config(name: str, part: Mapping[str, Any]) -> DatasetConfig:
    """Turn one entry of ``dataset.parts`` into a checked configuration.

    Raises:
        ConfigError: a key or value is not valid; the message names it.
    """
    try:
        merged = OmegaConf.merge(OmegaConf.structured(DatasetConfig), dict(part))
        return cast(DatasetConfig, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or ""
        raise ConfigError(f"dataset.parts.{name}.{key}: {str(error).splitlines()[0]}") from error


def _merge(built: Mapping[str, DataSplits], split: str) -> list[Example]:
    return [
        replace(example, group=_apart(name, example), meta={**example.meta, "part": name})
        for name, splits in built.items()
        for example in getattr(splits, split)
    ]


def _apart(part: str, example: Example) -> str:
    return f"{part}/{example.group}"


def _question(example: Example) -> str:
    return text_key(next(m.content for m in example.messages if m.role == "user"))


def _keys(examples: Iterable[Example]) -> set[str]:
    """Questions and rows: two parts may put the same row into different words."""
    return {key for example in examples for key in (_question(example), example.id)}


def _with_own_id(example: Example) -> Example:
    return replace(example, origin=hash_parts(example.meta["part"], example.id))


def _ordered(examples: list[Example], seed: int) -> tuple[Example, ...]:
    return tuple(sorted(examples, key=lambda e: rank(seed, f"{e.group}:{e.id}:{e.content_id}")))


def _report(built: Mapping[str, DataSplits], lost: int, shared: int) -> DataReport:
    reports = [splits.report for splits in built.values()]
    rows = sum(report.rows for report in reports)
    filtered: Counter[str] = Counter()
    for report in reports:
        filtered.update(report.filtered)
    if lost:
        filtered["held_out_by_another_part"] += lost
    return DataReport(
        rows=rows,
        filtered=dict(filtered),
        duplicates=sum(report.duplicates for report in reports),
        shared_groups=shared,
        leaking_rows=sum(report.leaking_rows for report in reports),
        row_split_leak=sum(r.row_split_leak * r.rows for r in reports) / max(rows, 1),
    )
