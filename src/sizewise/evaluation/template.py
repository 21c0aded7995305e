"""What evaluation needs to know of a chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from sizewise.errors import EvaluationError

if TYPE_CHECKING:
    from sizewise.data.example import Message


class AnswerTemplate(Protocol):
    """The part of ``sizewise.data.template.ChatTemplate`` that evaluation uses."""

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
