"""Training examples whose answers a teacher wrote: what it may be asked, and what comes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sizewise.config.data import DatasetConfig, SourceConfig, SplitConfig
from sizewise.data.example import DataSplits, Example
from sizewise.data.rows.examples import make_examples
from sizewise.data.rows.read import check_content, stream_rows
from sizewise.data.splits.groups import connect, rank, row_key
from sizewise.errors import ConfigError

TO_BE_WRITTEN = "(to be written)"
HELD_BACK = 0.1
UNANSWERED = {"unanswered": "yes"}


def unanswered_prompts(cfg: DatasetConfig) -> tuple[Example, ...]:
    """Read the prompts of ``dataset.teaching.prompts``, which have no answers.

    Raises:
        ConfigError: the data set is one whose prompts are not made of single rows.
        DataError: the file cannot be read, or lacks a column of the prompt or a group.
    """
    teaching = cfg.teaching
    if teaching.prompts is None:
        return ()
    if cfg.parts or cfg.conversation or cfg.few_shot:
        raise ConfigError(
            f"dataset.teaching.prompts={teaching.prompts!r} holds rows, of which the prompts of a "
            "mixture, of conversations or with demonstrations cannot be made. Leave it out."
        )
    source = SourceConfig("hub", teaching.prompts, sha256=teaching.prompts_sha256)
    check_content(source)
    plain = replace(
        cfg,
        source=source,
        answer=TO_BE_WRITTEN,
        label=None,
        strata=[],
        rejected=None,
        split=SplitConfig(),
        teacher=None,
        answers_from=None,
    )
    made = make_examples(stream_rows(source), plain).examples
    return tuple(replace(example, meta=UNANSWERED) for example in made)


def is_unanswered(example: Example) -> bool:
    """Whether there is no reference answer."""
    return example.meta.get("unanswered") == "yes"


def askable(splits: DataSplits, extra: Sequence[Example]) -> tuple[list[Example], int]:
    """Return the prompts that a teacher may be asked: training's and the extra ones.

    Whatever shares a question, a row or a declared group with a validation or test example, be it
    through others, is left out; the second value counts it.
    """
    held = (*splits.validation, *splits.test)
    asked = (*splits.train, *extra)
    groups = connect([(*example.keys, row_key(example.id)) for example in (*held, *asked)])
    forbidden, own = set(groups[: len(held)]), groups[len(held) :]
    kept = [e for e, group in zip(asked, own, strict=True) if group not in forbidden]
    return kept, len(asked) - len(kept)


def hold_back(
    examples: Sequence[Example], seed: int
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Part a tenth of the examples from the others, by groups; nothing of a single group."""
    sizes = Counter(example.group for example in examples)
    order = sorted(sizes, key=lambda name: rank(seed, name))
    held: set[str] = set()
    taken = 0
    for group in order[:-1]:
        if taken >= HELD_BACK * len(examples):
            break
        held.add(group)
        taken += sizes[group]
    kept = tuple(example for example in examples if example.group not in held)
    return kept, tuple(example for example in examples if example.group in held)


def taught_examples(
    train: Sequence[Example], asked: Sequence[Example], answers: Mapping[str, str], source: str
) -> tuple[Example, ...]:
    """Return the examples that are trained on.

    Args:
        train: the training split with its gold answers.
        asked: the prompts that the teacher was asked, in order.
        answers: its answers that are kept, by the id of the example.
        source: ``teacher``, or ``both`` (gold first; a teacher's answer that repeats it is left
            out).
    """
    written = [replace(e, answer=answers[e.id], origin="") for e in asked if e.id in answers]
    every = [*train, *written] if source == "both" else written
    seen: set[tuple[object, str]] = set()
    found = []
    for example in every:
        key = (example.messages, example.answer.strip())
        if key not in seen:
            seen.add(key)
            found.append(example)
    return tuple(found)
