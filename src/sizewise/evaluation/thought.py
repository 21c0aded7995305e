"""Thoughts that a chat template opens in the prompt, so that answers begin in their midst."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sizewise.metrics.codes import REASONING_TAGS

_OPENED = re.compile(rf"<(?:{'|'.join(REASONING_TAGS)})>\s*$", re.IGNORECASE)
TAIL = 24  # tokens of a prompt that hold its last tag, however it was cut into tokens


def opened_thought(tokenizer: Any, prompt_ids: Sequence[int]) -> str:
    """Return the opening tag that a prompt ends in, such as ``<think>``; empty without one."""
    text = tokenizer.decode(list(prompt_ids[-TAIL:]), skip_special_tokens=False)
    found = _OPENED.search(str(text))
    return found.group().strip() if found else ""


def with_thought(tokenizer: Any, opened: str, token_ids: Sequence[int], text: str) -> str:
    """Return an answer as if it had begun with the tag that its prompt ended in.

    Where the closing tag is a special token, decoding has dropped it: nothing is added then, for
    a thought that is never closed would swallow the answer.
    """
    if not opened:
        return text
    closing = f"</{opened[1:]}"
    raw = str(tokenizer.decode(list(token_ids), skip_special_tokens=False))
    lost = closing.casefold() in raw.casefold() and closing.casefold() not in text.casefold()
    return text if lost else f"{opened}{text}"
