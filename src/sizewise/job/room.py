"""Whether prompt and answer fit into the positions of a model."""

from __future__ import annotations

from collections.abc import Sequence

from sizewise.config import RunConfig
from sizewise.errors import DataError
from sizewise.job.checks import answered_splits
from sizewise.job.tasks import Task

SHORTEST = 8  # tokens that dataset.max_length has at least


def check_room(cfg: RunConfig, tasks: Sequence[Task], positions: int | None) -> None:
    """Refuse prompts that leave no room for an answer of ``generation.max_new_tokens``.

    A model with learned positions would break off in the midst of an answer, and one with rotary
    positions would answer beyond what it was trained for. A dry run is let through: its tiny
    model has positions enough, and its tokenizer may be another one than the base's.

    Args:
        cfg: the job.
        tasks: its data sets, encoded.
        positions: the longest sequence that the model takes; None: any.

    Raises:
        DataError: there are such prompts; the message says how many and what to set.
    """
    if positions is None or cfg.dry_run:
        return
    for key, name, task in answered_splits(cfg, tasks):
        lengths = [len(item.prompt_ids) for item in task.encoded[name].encoded]
        room = positions - cfg.generation.max_new_tokens
        over = sum(length > room for length in lengths)
        if over:
            raise DataError(
                f"{over} of {len(lengths)} {name} prompts of {task.name} (the longest has "
                f"{max(lengths)} tokens) and generation.max_new_tokens="
                f"{cfg.generation.max_new_tokens} exceed the {positions} positions of "
                f"{cfg.model.name}. {_advice(key, positions, room, max(lengths))}"
            )


def _advice(key: str, positions: int, room: int, longest: int) -> str:
    ways = []
    if longest < positions:
        ways.append(f"set generation.max_new_tokens={positions - longest} or less")
    if room >= SHORTEST:
        ways.append(
            f"set {key}.max_length={room} (longer examples are left out, or cut with "
            f"{key}.truncate_prompt=true)"
        )
    ways.append("choose a model with a longer context")
    text = ", or ".join(ways)
    return f"{text[0].upper()}{text[1:]}."
