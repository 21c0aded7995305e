"""What a chat adds around people's words: the run's system text, its prompt, and its limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sizewise.data.columns import TextTemplate, placeholders
from sizewise.data.example import Message
from sizewise.errors import EvaluationError


class PromptEncoder(Protocol):
    """The part of a chat template that counts tokens."""

    def encode_prompts(self, prompts: Sequence[Sequence[Message]]) -> list[list[int]]:
        """Encode conversations that end with a user turn."""


def as_in_training(prompt: str, text: str) -> str | None:
    """Write a message as the data set writes its prompts; None unless it has one column.

    Args:
        prompt: ``dataset.prompt``, such as ``"{dialogue}\\n\\nWhich code fits?"``.
        text: the message.
    """
    columns = placeholders(prompt)
    if len(columns) != 1 or prompt.strip() == f"{{{columns[0]}}}":
        return None
    return TextTemplate(prompt, columns, "dataset.prompt").render({columns[0]: text})


def fit_history(
    messages: Sequence[Message], template: PromptEncoder, limit: int | None
) -> tuple[list[int], int]:
    """Encode a conversation, leaving out its oldest exchanges until it fits.

    Args:
        messages: an optional system turn, then alternating turns that end with a user turn.
        template: encodes it.
        limit: most tokens of the prompt; None: no limit.

    Returns:
        The prompt's ids, and how many messages were left out.

    Raises:
        EvaluationError: the last message alone is too long.
    """
    system = [m for m in messages[:1] if m.role == "system"]
    turns = list(messages[len(system) :])
    for dropped in range(0, len(turns), 2):
        ids = template.encode_prompts([[*system, *turns[dropped:]]])[0]
        if limit is None or len(ids) <= limit:
            return ids, dropped
    raise EvaluationError(
        f"This message needs {len(ids)} tokens with the system text, and the model has room for "
        f"{limit} beside its answer. Shorten it, or lower the answer's length."
    )
