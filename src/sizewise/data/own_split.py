"""The source's own split: its column, and what to do where it leaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sizewise.config.data import SplitConfig
from sizewise.data.example import Example
from sizewise.errors import DataError

Parts = dict[str, list[Example]]


def divide_by_column(
    pairs: Sequence[tuple[Example, str | None]], cfg: SplitConfig, filtered: Counter[str]
) -> Parts:
    """Sort examples by the values that ``cfg.names`` gives to each split.

    Examples of other values are counted in ``filtered`` as ``other_split``.

    Raises:
        DataError: no row belongs to training although training is wanted.
    """
    parts: Parts = {"train": [], "validation": [], "test": []}
    split_of = {value: name for name, value in cfg.names.items()}
    for example, value in pairs:
        name = split_of.get(value or "")
        if name in parts:
            parts[name].append(example)
        else:
            filtered["other_split"] += 1
    if pairs and not any(parts.values()):
        found = sorted({value or "" for _, value in pairs})
        raise DataError(
            f"dataset.split.names={dict(cfg.names)} fits no value of the column {cfg.column!r}, "
            f"which holds: {', '.join(map(repr, found[:10]))}. Map train, validation and test to "
            "values that occur."
        )
    return parts


def drop_leaks(parts: Parts) -> Parts:
    """Leave out training rows that share a group with evaluation, and validation with test."""
    test = {example.group for example in parts["test"]}
    validation = [example for example in parts["validation"] if example.group not in test]
    held_out = test | {example.group for example in validation}
    train = [example for example in parts["train"] if example.group not in held_out]
    return {"train": train, "validation": validation, "test": parts["test"]}


def refuse_leaks(rows: int, groups: int) -> None:
    """Raise, saying how much the source's own split leaks."""
    raise DataError(
        f"The source's own split leaks: {rows} evaluation rows share a question, a conversation or "
        f"a declared group with training ({groups} groups are in more than one split). Set "
        "dataset.split.on_leak=drop to leave those training rows out, =report to go on, or "
        "dataset.split.column=null to draw a split by groups."
    )
