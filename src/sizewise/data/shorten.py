"""Cutting prompts from the left so that the answer fits, template and system text kept whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sizewise.data.example import Message
from sizewise.data.prompt_format import PromptFormat

Turns = tuple[Message, ...]
Fitting = Callable[[Turns], list[int] | None]


def shorten_prompts(
    messages: Sequence[Turns],
    prompts: list[list[int]],
    answers: list[list[int]],
    template: PromptFormat,
    limit: int,
) -> list[bool]:
    """Replace the prompts that are too long by shorter ones, in place.

    Returns:
        For each example whether its prompt was cut. Where nothing of the question would remain,
        it is left as it was (and will be dropped).
    """
    cut = [False] * len(prompts)
    for place, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        if template.length(len(prompt), len(answer)) > limit:
            shorter = shorten(messages[place], len(answer), template, limit)
            if shorter is not None:
                prompts[place], cut[place] = shorter, True
    return cut


def shorten(messages: Turns, answer: int, template: PromptFormat, limit: int) -> list[int] | None:
    """Drop the oldest turns, then text from the left of the question, until the answer fits.

    Args:
        messages: the prompt's turns.
        answer: tokens of the answer.
        template: how turns become ids.
        limit: bound in tokens.

    Returns:
        The ids of the longest such prompt found, None where none fits.
    """

    def fitting(turns: Turns) -> list[int] | None:
        ids = template.encode_prompts([turns])[0]
        return ids if template.length(len(ids), answer) <= limit else None

    system = tuple(message for message in messages if message.role == "system")
    turns = tuple(message for message in messages if message.role != "system")
    while len(turns) > 1:
        turns = turns[2:]
        if (ids := fitting(system + turns)) is not None:
            return ids
    return _cut_question(system, turns[-1].content, fitting) if turns else None


def _cut_question(system: Turns, text: str, fitting: Fitting) -> list[int] | None:
    best: list[int] | None = None
    low, high = 1, len(text) - 1
    while low <= high:
        start = (low + high) // 2
        kept = text[start:].lstrip()
        ids = fitting((*system, Message("user", kept))) if kept else None
        if ids is not None:
            best, high = ids, start - 1
        elif not kept:
            high = start - 1
        else:
            low = start + 1
    return best
