"""Several data sets merged into one: groups kept apart, held-out parts, and how they ask."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sizewise.config.data import SPLITS, DatasetConfig
from sizewise.data.example import DataReport, DataSplits, Example
from sizewise.data.splits.draw import limited
from sizewise.data.splits.few_shot import add_demonstrations, without_demonstrations
from sizewise.data.splits.groups import connect, question_keys, row_key, shared_groups
from sizewise.data.tokens.cache import hash_parts
from sizewise.errors import ConfigError, DataError
from sizewise.files import hash_text

Build = Callable[[DatasetConfig], DataSplits]


def build_mixture(cfg: DatasetConfig, build: Build) -> DataSplits:
    """Build every part by its own configuration (limits and split included) and merge them.

    Each example carries the stratum ``part``, which is part of its ``id`` too. A training example
    is left out, and counted as ``held_out_by_another_part``, if its question or row is held out by
    any part, or its group by another part; so is a validation example that is tested. Groups are
    those of all parts together: rows of two parts are in one if their question is the same, or if
    both parts declare a group column of the same name and the value is the same. Equal values of
    columns with different names are different groups.

    A part's demonstrations are chosen from what remains of its training examples, and the
    mixture's own size limits apply after merging.

    Raises:
        DataError: there are no parts, a part cannot be built, or no training or validation example
            of any part remains.
        ConfigError: a part is not a valid data set configuration.
    """
    if not cfg.parts:
        raise DataError("dataset.parts is empty: a mixture needs at least one data set in it.")
    configs = {name: part_config(name, part) for name, part in cfg.parts.items()}
    built = {name: build(without_demonstrations(part)) for name, part in configs.items()}
    merged = _merge(built)
    parts = hold_out(merged)
    _require(merged, parts)
    lost = sum(len(merged[name]) - len(parts[name]) for name in SPLITS)
    shown = [_demonstrate(name, part, parts) for name, part in configs.items()]
    kept = limited({n: [e for s in shown for e in getattr(s, n)] for n in SPLITS}, cfg)
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


def _merge(built: Mapping[str, DataSplits]) -> Parts:
    """Put the parts' splits together; groups are connected anew, over all parts."""
    found = [
        (split, replace(example, meta={**example.meta, "part": name}))
        for name, splits in built.items()
        for split in SPLITS
        for example in getattr(splits, split)
    ]
    groups = connect([(*example.keys, row_key(example.id)) for _, example in found])
    merged: Parts = {name: [] for name in SPLITS}
    for (split, example), group in zip(found, groups, strict=True):
        merged[split].append(replace(example, group=group))
    return merged


def _demonstrate(name: str, part: DatasetConfig, parts: Parts) -> DataSplits:
    """Return one part's splits, with its demonstrations and with ids of their own."""
    own = {
        split: tuple(
            replace(e, origin=hash_parts(name, e.id))
            for e in parts[split]
            if e.meta["part"] == name
        )
        for split in SPLITS
    }
    splits = DataSplits(
        own["train"], own["validation"], own["test"], DataReport(0, {}, 0, 0, 0, 0.0)
    )
    return add_demonstrations(splits, part.few_shot, part.few_shot_style, part.max_train)


def _require(merged: Parts, parts: Parts) -> None:
    empty = [name for name in ("train", "validation") if merged[name] and not parts[name]]
    if not empty:
        return
    had = Counter(e.meta["part"] for e in merged[empty[0]])
    counts = ", ".join(f"{name} {count}" for name, count in had.items())
    raise DataError(
        f"The mixture has no {' and no '.join(empty)} examples: all {had.total()} of the parts "
        f"({counts}) share a question, a row or a declared group with what a part holds out. Give "
        "the parts the same split (dataset.parts.NAME.split), or leave out a part that repeats "
        "another; group columns that only number rows need different names in different parts."
    )


def _report(built: Mapping[str, DataSplits], lost: int, shared: int) -> DataReport:
    reports = [splits.report for splits in built.values()]
    rows = sum(report.rows for report in reports)
    filtered: Counter[str] = Counter()
    noted: Counter[str] = Counter()
    for report in reports:
        filtered.update(report.filtered)
        noted.update(report.noted)
    if lost:
        filtered["held_out_by_another_part"] += lost
    return DataReport(
        rows=rows,
        filtered=dict(filtered),
        duplicates=sum(report.duplicates for report in reports),
        shared_groups=shared,
        leaking_rows=sum(report.leaking_rows for report in reports),
        row_split_leak=sum(r.row_split_leak * r.rows for r in reports) / max(rows, 1),
        noted=dict(noted),
    )


Parts = dict[str, list[Example]]


def hold_out(merged: Parts) -> Parts:
    """Leave out what is tested from validation, and what is held out from training.

    Questions and rows are held out by any part, whatever its words; groups by another part only:
    what a part's own split leaks is the matter of its ``on_leak``. Each example carries its part,
    and the group that it is in among all of them.
    """
    validation = _apart(merged["validation"], merged["test"])
    train = _apart(merged["train"], [*merged["test"], *validation])
    return {"train": train, "validation": validation, "test": merged["test"]}


def _apart(examples: Sequence[Example], held: Sequence[Example]) -> list[Example]:
    keys = {key for example in held for key in _own_keys(example)}
    parts: dict[str, set[str]] = {}
    for example in held:
        parts.setdefault(example.group, set()).add(example.meta["part"])
    return [
        example
        for example in examples
        if keys.isdisjoint(_own_keys(example))
        and parts.get(example.group, set()) <= {example.meta["part"]}
    ]


def _own_keys(example: Example) -> set[str]:
    """Question and row: two parts may put the same row into different words."""
    return question_keys(example.keys) | {row_key(example.id)}


IF_SET = ("clean_whitespace", "truncate_prompt", "history", "conversation")


def prompt_fingerprint(cfg: DatasetConfig) -> str:
    """Hash everything but the rows that decides what a model reads (16 hex digits).

    A mixture's is that of its own settings and of every part's, whose prompts are cut as the
    mixture says. ``few_shot_style`` counts with demonstrations only, ``train_on`` with a
    ``conversation`` only.

    Raises:
        ConfigError: a part is not a valid data set configuration.
    """
    wording: list[Any] = [cfg.system, cfg.prompt, cfg.answer, cfg.few_shot, cfg.max_length]
    if cfg.few_shot:
        wording.append(cfg.few_shot_style)
    wording += [_setting(cfg, name) for name in IF_SET if getattr(cfg, name)]
    if cfg.conversation:
        wording.append(cfg.train_on)
    if cfg.parts:
        wording.append({name: _of_part(cfg, name) for name in sorted(cfg.parts)})
    return hash_text(json.dumps(wording), 16)


def _setting(cfg: DatasetConfig, name: str) -> Any:
    value = getattr(cfg, name)
    return name if value is True else [name, value]


def _of_part(cfg: DatasetConfig, name: str) -> str:
    part = part_config(name, cfg.parts[name])
    return prompt_fingerprint(
        replace(part, max_length=cfg.max_length, truncate_prompt=cfg.truncate_prompt)
    )
