"""Dialogues as columns hold them, turned into alternating messages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sizewise.data.example import Message, Role
from sizewise.data.rows.columns import as_text, tidy
from sizewise.errors import DataError

_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "patient": "user",
    "client": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "therapist": "assistant",
}


def read_turns(value: Any, key: str, clean: bool = False) -> list[Message]:
    """Turn a cell into messages: at most one system turn, then alternating user and assistant.

    Args:
        value: a list of strings (user first), of role/content or from/value mappings, the JSON
            text of such a list, or empty.
        key: the configuration key, for messages.
        clean: tidy white space.

    Empty turns are left out and neighbours of one role are joined; turns of the assistant before
    the first of the user are left out.

    Raises:
        DataError: the cell is something else, or names an unknown role.
    """
    turns = [
        Message(role, tidy(text) if clean else text)
        for role, text in _pairs(_listed(value, key), key)
        if text.strip()
    ]
    system = [turn for turn in turns if turn.role == "system"]
    dialogue = [turn for turn in turns if turn.role != "system"]
    while dialogue and dialogue[0].role == "assistant":
        dialogue.pop(0)
    return join_neighbours(system)[:1] + join_neighbours(dialogue)


def join_neighbours(turns: Sequence[Message]) -> list[Message]:
    """Join neighbouring turns of one role, so that roles alternate as templates demand."""
    joined: list[Message] = []
    for turn in turns:
        if joined and joined[-1].role == turn.role:
            joined[-1] = Message(turn.role, f"{joined[-1].content}\n\n{turn.content}")
        else:
            joined.append(turn)
    return joined


def answered_turns(
    turns: Sequence[Message], train_on: str
) -> Iterator[tuple[tuple[Message, ...], str]]:
    """Yield (prompt messages, answer) for every turn of the assistant, or the last one only."""
    places = [number for number, turn in enumerate(turns) if turn.role == "assistant"]
    for place in places if train_on == "all" else places[-1:]:
        yield tuple(turns[:place]), turns[place].content


def _listed(value: Any, key: str) -> Sequence[Any]:
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise DataError(f"{key}: a cell is not valid JSON ({error.msg}).") from error
    if isinstance(value, (list, tuple)):
        return value
    if not as_text(value).strip():
        return []
    raise DataError(
        f"{key}: a cell holds {type(value).__name__}, not a list of turns. Give a list of strings "
        "or of mappings with role and content."
    )


def _pairs(values: Sequence[Any], key: str) -> Iterator[tuple[Role, str]]:
    for number, value in enumerate(values):
        if isinstance(value, Mapping):
            yield _role(value, key), as_text(value.get("content", value.get("value")))
        elif value is None or isinstance(value, str):
            yield ("user" if number % 2 == 0 else "assistant"), as_text(value)
        else:
            raise DataError(f"{key}: a turn is {type(value).__name__}, not a text or a mapping.")


def _role(turn: Mapping[str, Any], key: str) -> Role:
    name = as_text(turn.get("role", turn.get("from"))).strip().lower()
    if name not in _ROLES:
        raise DataError(
            f"{key}: a turn has the role {name!r}. Known roles: {', '.join(_ROLES)}. "
            "A turn is a mapping with role and content, or with from and value."
        )
    return _ROLES[name]
