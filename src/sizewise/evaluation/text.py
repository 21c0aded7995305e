"""What evaluation needs of a chat template: decoding, padding, and opened thoughts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from sizewise.errors import EvaluationError
from sizewise.metrics.codes import REASONING_TAGS

if TYPE_CHECKING:
    from sizewise.data.example import Message


class AnswerTemplate(Protocol):
    """The part of ``sizewise.data.tokens.template.ChatTemplate`` that evaluation uses."""

    @property
    def tokenizer(self) -> Any:
        """The tokenizer that decodes answers."""

    @property
    def stop_ids(self) -> Sequence[int]:
        """Every token id that ends an answer."""

    @property
    def fingerprint(self) -> str:
        """Hash of the template's text and settings."""

    def answer_ids(self, messages: Sequence[Message], answer: str) -> Sequence[int]:
        """Encode an answer, end of turn included."""


def pad_id(template: AnswerTemplate) -> int:
    """Return an id to pad with; it is masked everywhere, so any valid one will do."""
    padding = template.tokenizer.pad_token_id
    if padding is not None:
        return int(padding)
    return int(template.stop_ids[0]) if template.stop_ids else 0


def decode_answer(template: AnswerTemplate, token_ids: Sequence[int]) -> str:
    """Decode generated ids to text, without special tokens and surrounding white space.

    Raises:
        EvaluationError: an id is negative, such as the label value -100.
    """
    if any(token < 0 for token in token_ids):
        raise EvaluationError(
            f"Token ids {sorted({t for t in token_ids if t < 0})} cannot be decoded: labels were "
            "passed where generated ids belong."
        )
    stops = set(template.stop_ids)
    text = template.tokenizer.decode(
        [token for token in token_ids if token not in stops],
        skip_special_tokens=True,
        clean_up_tokenization_spaces=False,
    )
    return str(text).strip()


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
