"""What one part of a mixture holds out, no other part trains on."""

from __future__ import annotations

from collections.abc import Sequence

from sizewise.data.example import Example
from sizewise.data.groups import question_keys, row_key

Parts = dict[str, list[Example]]


def hold_out(merged: Parts) -> Parts:
    """Leave out what is tested from validation, and what is held out from training.

    Questions and rows are held out by any part, whatever its words; groups by another part only:
    what a part's own split leaks is the matter of its ``on_leak``.

    Args:
        merged: examples of all parts by split; each carries its part, and the group that it is in
            among all of them.
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
