"""A data set as a model reads it, described for the app."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sizewise.app.evaluations import check_named, check_plain
from sizewise.composition.compose import compose_run, override_of
from sizewise.config import RunConfig
from sizewise.config.data import SPLITS
from sizewise.data.build import build_splits
from sizewise.data.explore import Exploration, explore, group_columns
from sizewise.metrics.reading.closed import plain
from sizewise.models.tokenizer import load_template

SAMPLES = 200


def explore_config(config: RunConfig, seed: int = 0) -> Exploration:
    """Describe the data set of a configuration in tokens of its model."""
    template = load_template(config.model)
    groups = group_columns(config.dataset)
    splits = build_splits(config.dataset)
    return explore(splits, template, SAMPLES, seed, groups=groups, alike=plain)


def explore_overrides(overrides: list[str]) -> Exploration:
    """Describe what ``train.py`` would read with these overrides; raises ConfigError."""
    check_named(overrides, ("dataset", "model"))
    return explore_config(compose_run(overrides))


def explore_table(path: Path, prompt: str, answer: str, model: str = "nano") -> Exploration:
    """Describe a CSV file of which ``prompt`` and ``answer`` are columns.

    Raises:
        SizewiseError: the file cannot be read, or has no such columns.
    """
    check_plain([prompt, answer])
    columns = {"prompt": f"{{{prompt}}}", "answer": f"{{{answer}}}"}
    chosen = {"dataset": "csv", "dataset.source.path": path, "dataset.name": path.stem}
    settings = {**chosen, **{f"dataset.{part}": text for part, text in columns.items()}}
    words = [override_of(key, value) for key, value in {**settings, "model": model}.items()]
    return explore_config(compose_run(words))


def size_rows(found: Exploration) -> list[dict[str, Any]]:
    """One row per split: examples, groups, token lengths, repeated prompts and answers."""
    rows = []
    for split in SPLITS:
        if split not in found.lengths:
            continue
        lengths, repeated = found.lengths[split], found.repetition[split]
        rows.append(
            {
                "split": split,
                "examples": found.sizes[split],
                "groups": repeated.groups,
                "largest group": repeated.largest_group,
                "prompt tokens (median)": round(lengths.prompt.p50),
                "prompt tokens (longest)": round(lengths.prompt.max),
                "answer tokens (median)": round(lengths.answer.p50),
                "answer tokens (longest)": round(lengths.answer.max),
                "repeated prompts": repeated.prompts,
                "repeated answers": repeated.answers,
            }
        )
    return rows
