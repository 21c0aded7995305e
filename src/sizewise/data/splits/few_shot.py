"""Demonstrations: examples of the training split put before every prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sizewise.config.data import DatasetConfig
from sizewise.data.example import DataSplits, Example, Message, as_examples
from sizewise.data.splits.groups import shared_groups, text_key
from sizewise.errors import DataError


def without_demonstrations(cfg: DatasetConfig) -> DatasetConfig:
    """Return the configuration of the whole splits that demonstrations are added to."""
    return replace(cfg, few_shot=0, max_train=None) if cfg.few_shot else cfg


def add_demonstrations(
    splits: DataSplits, k: int, style: str, max_train: int | None = None
) -> DataSplits:
    """Put the same ``k`` training examples before every prompt; ``splits`` have none yet.

    They are the first of the whole training split (whose order the split seed draws) with labels
    as different as possible, so that they are the same for every ``max_train``; none shares a
    group with a held-out example. They are taken out of training, so that none demonstrates
    itself, and ``max_train`` counts what remains. An example keeps its ``id``; its ``content_id``
    and so the fingerprints of prompts change. ``style``: ``turns`` (earlier turns of the
    conversation) or ``text`` (within the prompt).

    Raises:
        DataError: training has no more than ``k`` single-question examples.
    """
    if k == 0:
        return splits
    train = as_examples(splits.train)
    held_out = {g for part in (splits.validation, splits.test) for g in as_examples(part).groups()}
    shown = choose(train.where([group not in held_out for group in train.groups()]), k)
    taken = {example.content_id for example in shown}
    left = train.where([own not in taken for own in train.content_ids()])[:max_train]
    if len(shown) < k or not left:
        raise DataError(
            f"dataset.few_shot={k} needs more than {k} training examples that begin a "
            f"conversation; there are {len(splits.train)} training examples. Lower it."
        )
    parts = {"train": left, "validation": splits.validation, "test": splits.test}
    add = _as_turns if style == "turns" else _as_text
    report = replace(splits.report, shared_groups=shared_groups(parts))
    rest = replace(splits, train=left, report=report)
    return rest.map(lambda example: add(example, shown))


def choose(train: Sequence[Example], k: int) -> list[Example]:
    """Take the first ``k`` examples without history, new labels before repeated ones."""
    single = (e for e in train if [m.role for m in e.messages if not m.leads] == ["user"])
    fresh: list[Example] = []
    again: list[Example] = []
    seen: set[str] = set()
    for example in single:
        label = text_key(example.meta.get("label", example.id))
        if label not in seen:
            fresh.append(example)
        elif len(again) < k:
            again.append(example)
        if len(fresh) == k:
            break
        seen.add(label)
    return (fresh + again)[:k]


def _parts(example: Example) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    head = tuple(m for m in example.messages if m.leads)
    return head, tuple(m for m in example.messages if not m.leads)


def _as_turns(example: Example, shown: Sequence[Example]) -> Example:
    head, turns = _parts(example)
    earlier = tuple(
        message for one in shown for message in (one.messages[-1], Message("assistant", one.answer))
    )
    return replace(example, messages=head + earlier + turns, origin=example.id)


def _as_text(example: Example, shown: Sequence[Example]) -> Example:
    head, turns = _parts(example)
    text = "\n\n".join(f"{one.messages[-1].content}\n\n{one.answer}" for one in shown)
    first = replace(turns[0], content=f"{text}\n\n{turns[0].content}")
    return replace(example, messages=(*head, first, *turns[1:]), origin=example.id)
