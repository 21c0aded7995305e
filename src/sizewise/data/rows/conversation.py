"""Dialogues as columns hold them, turned into alternating messages."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeGuard

from sizewise.config.data import DatasetConfig
from sizewise.data.example import Message, Role
from sizewise.data.rows.columns import TEXT_PARTS, as_text, tidy
from sizewise.errors import DataError

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
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
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "ipython": "tool",
    "tools": "tools",
}
_CALLS = ("function_call", "tool_call")
_REASONING = ("reasoning_content", "reasoning", "thinking")
_WEIGHTS = ("weight", "train", "loss")
_OF_TOOLS = ("name", "tool_call_id")
_READ = {"role", "from", "content", "value", "tool_calls", "function_call", *_WEIGHTS}


def read_turns(
    value: Any,
    key: str,
    clean: bool = False,
    noted: Counter[str] | None = None,
    goes_on: bool = False,
) -> list[Message]:
    """Turn a cell into messages: tools, at most one system turn, then the dialogue.

    The cell is a list of strings (user first), of role/content or from/value mappings, the JSON
    text of such a list, or empty. Empty turns are left out and neighbours of one role are joined;
    turns before the first of the user are left out, unless the cell ``goes_on`` from a prompt.
    Calls of tools, their results and answers of weight 0 stay turns of their own. A system turn
    behind an answer stays there, as a text of the user: no earlier answer may see it. ``noted``
    counts what is left out, moved or not read.

    Raises:
        DataError: the cell is something else, or names an unknown role.
    """
    noted = Counter() if noted is None else noted
    turns: list[Message] = []
    for turn in _turns(_listed(value, key), key, noted):
        if turn.content.strip() or turn.role == "tool" or "tool_calls" in turn.extra:
            turns.append(replace(turn, content=tidy(turn.content)) if clean else turn)
        else:
            noted["empty turns left out"] += 1
    tools = [turn for turn in turns if turn.role == "tools"]
    system: list[Message] = []
    dialogue: list[Message] = []
    for turn in (turn for turn in turns if turn.role != "tools"):
        if turn.role == "system" and any(map(_answers, dialogue)):
            asked = next((said.weight for said in dialogue if said.role == "user"), 1)
            dialogue.append(Message("user", turn.content, weight=asked))
            noted["system turns behind an answer read as a text of the user"] += 1
        elif turn.role == "system":
            system.append(replace(turn, weight=1))
        elif dialogue or turn.role == "user" or goes_on:
            dialogue.append(turn)
        else:
            noted["turns before the first of the user left out"] += 1
    if tools[1:]:
        noted["further definitions of tools left out"] += len(tools[1:])
    return [*tools[:1], *join_neighbours(system)[:1], *join_neighbours(dialogue)]


def _answers(turn: Message) -> bool:
    return turn.role == "assistant" and "tool_calls" not in turn.extra


def join_neighbours(turns: Sequence[Message]) -> list[Message]:
    """Join neighbouring turns of one role, so that roles alternate as templates demand.

    What a call of a tool, its result or a weight sets apart stays apart.
    """
    joined: list[Message] = []
    for turn in turns:
        if joined and _belong_together(joined[-1], turn):
            joined[-1] = replace(turn, content=f"{joined[-1].content}\n\n{turn.content}")
        else:
            joined.append(turn)
    return joined


def _belong_together(one: Message, other: Message) -> bool:
    alike = (one.role, one.weight) == (other.role, other.weight)
    return alike and one.role != "tool" and not one.extra and not other.extra


def answered_turns(
    turns: Sequence[Message], train_on: str, skipped: Counter[str] | None = None, start: int = 0
) -> Iterator[tuple[tuple[Message, ...], str]]:
    """Yield (prompt messages, answer) for every turn of the assistant, or the last one only.

    ``train_on``: ``all`` or ``last``; ``skipped`` counts turns of weight 0 and calls of tools,
    which are no answers to learn; ``start``: the first turn that may be an answer.
    """
    places = [number for number, turn in enumerate(turns) if turn.role == "assistant"]
    places = [place for place in places if place >= start]
    for place in places if train_on == "all" else places[-1:]:
        turn = turns[place]
        reason = "weight_0" if not turn.weight else "tool_call_as_answer"
        if turn.weight and "tool_calls" not in turn.extra:
            yield tuple(turns[:place]), _with_reasoning(turn)
        elif skipped is not None:
            skipped[reason] += 1


def _with_reasoning(turn: Message) -> str:
    """Write an answer as reasoning models do, which chat templates read back."""
    thought = turn.extra.get("reasoning_content")
    return f"<think>\n{thought}\n</think>\n\n{turn.content}" if thought else turn.content


def is_conversation(value: Any) -> TypeGuard[Sequence[Any]]:
    """Whether a cell is a list of turns, each a mapping with a role and what was said."""
    return bool(value) and isinstance(value, (list, tuple)) and all(map(_is_turn, value))


def _is_turn(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    return ("role" in value and bool({"content", "tool_calls"} & set(value))) or (
        "from" in value and "value" in value
    )


AUTO = "auto"
DIALOGUES = (
    "messages", "conversations", "conversation", "dialogue", "dialog", "chat", "turns",
)  # fmt: skip
PAIRS = (("prompt", "completion"), ("prompt", "chosen"), ("prompt", "response"))


def chat_columns(cfg: DatasetConfig, columns: Sequence[str], rows: Sequence[Any]) -> DatasetConfig:
    """Return the configuration in which ``dataset.conversation=auto`` names what ``rows`` hold.

    ``rows`` are the first ones.

    The columns are known by their names in any case: one with whole conversations, else prompt and
    answer, each a text or a list of messages.

    Raises:
        DataError: the rows have none of them.
    """
    if cfg.conversation != AUTO or AUTO in columns:
        return cfg
    named = {name.strip().casefold(): name for name in reversed(columns)}
    for name in (named[known] for known in DIALOGUES if known in named):
        if any(holds_turns(row.get(name)) for row in rows):
            return replace(cfg, conversation=name)
    for prompt, answer in PAIRS:
        if prompt in named and answer in named:
            rejected = named.get("rejected") if answer == "chosen" else None
            asked, said = f"{{{named[prompt]}}}", f"{{{named[answer]}}}"
            cfg = replace(cfg, prompt=asked, answer=said, conversation=None)
            return replace(cfg, rejected=cfg.rejected or rejected)
    if "chosen" in named:
        return replace(cfg, conversation=named["chosen"], train_on="last")
    raise DataError(
        f"dataset.conversation=auto finds no conversations: the columns are {', '.join(columns)}. "
        f"It looks for lists of turns in {', '.join(DIALOGUES)}, and for prompt with completion, "
        "chosen or response. Name the column: dataset.conversation=COLUMN; or, for a question and "
        "an answer in each row, dataset.prompt and dataset.answer."
    )


def holds_turns(value: Any) -> bool:
    """Whether a cell, or the JSON in it, is a list of turns: mappings, or texts in turn."""
    if isinstance(value, str):
        value = _parsed(value) if value.lstrip().startswith("[") else None
    texts = isinstance(value, list | tuple) and all(isinstance(turn, str) for turn in value)
    return bool(value) and (texts or is_conversation(value))


def read_tools(value: Any, column: str) -> list[Message]:
    """Turn a cell with definitions of tools into the message that carries them, if there are any.

    Raises:
        DataError: the cell is neither empty nor a list of mappings (or its JSON).
    """
    tools = _listed(value, column)
    if not all(isinstance(tool, Mapping) for tool in tools):
        raise DataError(f"{column}: definitions of tools are a list of mappings, or JSON of one.")
    return [Message("tools", as_text(list(tools), column, structured=True))] if tools else []


def _listed(value: Any, key: str) -> Sequence[Any]:
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            said = getattr(error, "msg", error)
            raise DataError(f"{key}: a cell is not valid JSON ({said}).") from error
    if isinstance(value, (list, tuple)):
        return value
    if not as_text(value, key).strip():
        return []
    raise DataError(
        f"{key}: a cell holds {type(value).__name__}, not a list of turns. Give a list of strings "
        "or of mappings with role and content."
    )


def _turns(values: Sequence[Any], key: str, noted: Counter[str]) -> Iterator[Message]:
    for number, value in enumerate(values):
        if isinstance(value, Mapping):
            yield _turn(value, key, noted)
        elif value is None or isinstance(value, str):
            yield Message("user" if number % 2 == 0 else "assistant", as_text(value, key))
        else:
            raise DataError(f"{key}: a turn is {type(value).__name__}, not a text or a mapping.")


def _turn(turn: Mapping[str, Any], key: str, noted: Counter[str]) -> Message:
    name, role = _role(turn, key)
    content = _given(turn, "content", "value")
    calls = _calls(turn, key)
    if name in _CALLS and not calls and (call := _call(content)) is not None:
        calls, content = [call], None
    thought = next((text for k in _REASONING if (text := as_text(turn.get(k), key)).strip()), "")
    extra: dict[str, Any] = {"tool_calls": calls} if calls else {}
    if thought and role == "assistant":
        extra["reasoning_content"] = thought
    if role == "tool":
        named = {known: as_text(turn.get(known), key) for known in _OF_TOOLS}
        extra |= {known: text for known, text in named.items() if text.strip()}
    unread = set(turn) - _READ - set(_REASONING if role == "assistant" else ())
    for other in sorted(unread - set(_OF_TOOLS if role == "tool" else ()), key=str):
        if turn[other] not in (None, "", [], {}):
            noted[f"turns whose {other!r} is not read"] += 1
    return Message(role, _content(content, key), extra, _weight(turn, key))


def _given(turn: Mapping[str, Any], *names: str) -> Any:
    """Return the first of these keys that is there; null is not."""
    return next((turn[name] for name in names if turn.get(name) is not None), None)


def _content(value: Any, key: str) -> str:
    """Return what a turn says: text, text parts joined, or the JSON of a result."""
    parts = value if isinstance(value, (list, tuple)) else ()
    kinds = {str(part["type"]) for part in parts if isinstance(part, Mapping) and "type" in part}
    other = ", ".join(sorted(kinds - set(TEXT_PARTS)))
    if other:
        raise DataError(
            f"{key}: a turn has parts of the type {other}, and a language model reads text only. "
            "Take them out, or write them as text."
        )
    return as_text(value, key, structured=True)


def _weight(turn: Mapping[str, Any], key: str) -> int:
    for name in _WEIGHTS:
        if (value := turn.get(name)) is not None and value not in (0, 1):
            raise DataError(
                f"{key}: a turn has {name}={value!r}. Give 0 (not trained on) or 1 (trained on)."
            )
    return int(all(turn.get(name) is None or bool(turn[name]) for name in _WEIGHTS))


def _calls(turn: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the calls of tools of a turn, arguments as mappings as templates take them."""
    given = turn.get("tool_calls") or turn.get("function_call")
    if not given:
        return []
    given = _parsed(given) if isinstance(given, str) else given
    calls = [_call(call) for call in (given if isinstance(given, (list, tuple)) else [given])]
    if None in calls:
        raise DataError(
            f"{key}: a turn's tool_calls are not a list of mappings with a function's name and "
            "arguments."
        )
    return [call for call in calls if call is not None]


def _call(value: Any) -> dict[str, Any] | None:
    value = _parsed(value) if isinstance(value, str) else value
    if not isinstance(value, Mapping):
        return None
    function = value.get("function", value)
    if not isinstance(function, Mapping) or not function.get("name"):
        return None
    arguments = function.get("arguments", function.get("parameters"))
    read = _parsed(arguments) if isinstance(arguments, str) else arguments
    called = {
        "name": as_text(function["name"]),
        "arguments": read if isinstance(read, Mapping) else arguments or {},
    }
    named = {"id": value["id"]} if value.get("id") else {}
    plain: dict[str, Any] = json.loads(as_text({**named, "type": "function", "function": called}))
    return plain


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _role(turn: Mapping[str, Any], key: str) -> tuple[str, Role]:
    name = as_text(_given(turn, "role", "from"), key).strip().lower()
    if name not in _ROLES:
        raise DataError(
            f"{key}: a turn has the role {name!r}. Known roles: {', '.join(_ROLES)}. "
            "A turn is a mapping with role and content, or with from and value."
        )
    return name, _ROLES[name]
