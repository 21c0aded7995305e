"""What of tools a chat template writes: definitions, calls and results, seen by rendering them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sizewise.data.example import Message
from sizewise.errors import ModelError

Turn = dict[str, Any]
_PROBE = "tool7q"
_ASK: Turn = {"role": "user", "content": "?"}
_SAY: Turn = {"role": "assistant", "content": "."}
_ID = "abcdefghi"  # some templates take ids of nine letters only


def _called(name: str) -> Turn:
    call = {"id": _ID, "type": "function", "function": {"name": name, "arguments": {}}}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def _result(text: str) -> Turn:
    return {"role": "tool", "content": text, "name": "f", "tool_call_id": _ID}


def _defined(name: str) -> Turn:
    function = {"name": name, "description": "", "parameters": {"type": "object"}}
    return {"role": "tools", "content": [{"type": "function", "function": function}]}


_PROBES: Mapping[str, tuple[str, tuple[list[Turn], ...]]] = {
    "tools": ("definitions of tools", ([_defined(_PROBE), _ASK],)),
    "tool_calls": (
        "calls of tools",
        ([_ASK, _called(_PROBE)], [_ASK, _called(_PROBE), _result("."), _SAY]),
    ),
    "tool": (
        "results of tools",
        ([_ASK, _called("f"), _result(_PROBE), _SAY], [_ASK, _SAY, _result(_PROBE), _SAY]),
    ),
}


class ToolParts:
    """Knows which parts of a conversation with tools a template writes.

    ``render`` writes turns with a template; a ModelError says that it cannot.
    """

    def __init__(self, render: Callable[[Sequence[Turn]], str]) -> None:
        self._render = render
        self._written: dict[str, bool] = {}

    def require(self, message: Message) -> None:
        """Raise ModelError for a definition, call or result that the template leaves out."""
        part: str = "tool_calls" if "tool_calls" in message.extra else message.role
        if part not in _PROBES:
            return
        name, probes = _PROBES[part]
        if part not in self._written:
            self._written[part] = any(map(self._shows, probes))
        if not self._written[part]:
            raise ModelError(
                f"The data holds {name}, which the chat template does not write: the model would "
                "never see them. Choose a model whose template knows tools, set "
                "model.chat_template, or take them out of the data."
            )

    def _shows(self, turns: Sequence[Turn]) -> bool:
        try:
            return _PROBE in self._render(turns)
        except ModelError:
            return False
