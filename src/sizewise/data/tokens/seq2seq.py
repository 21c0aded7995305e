"""Prompts and answers for encoder–decoder models, which have no chat template."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sizewise.data.example import Message
from sizewise.data.tokens.cache import hash_parts, tokenizer_fingerprint
from sizewise.data.tokens.control import Neutraliser, PieceEncoder, special_tokens
from sizewise.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_SPEAKERS = {"user": "User", "assistant": "Assistant"}


class Seq2SeqTemplate:
    """Encoder input: system text (the instruction) and turns; decoder target: answer and EOS.

    A single question is written as it is; a longer dialogue names its speakers. It is a
    ``Template`` as ``ChatTemplate`` is, so that encoding, caching and batching are shared.

    Raises:
        ModelError: the tokenizer has no EOS token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if tokenizer.eos_token_id is None:
            raise ModelError("A seq2seq model needs a tokenizer with an EOS token; this has none.")
        self.tokenizer = tokenizer
        self.end_of_turn = int(tokenizer.eos_token_id)
        self.stop_ids = [self.end_of_turn]
        self.answer_lead: list[int] = []
        self.source: str | None = None
        self.template_kwargs: dict[str, Any] = {}
        self.context: int | None = None  # relative positions have no bound of their own
        self._marks = Neutraliser(special_tokens(tokenizer))
        self._encoder = PieceEncoder(tokenizer)

    @cached_property
    def fingerprint(self) -> str:
        return hash_parts("seq2seq", tokenizer_fingerprint(self.tokenizer))

    def prompt(self, messages: Sequence[Message]) -> str:
        system = [message.content for message in messages if message.role == "system"]
        turns = [message for message in messages if message.role != "system"]
        if any(turn.role not in _SPEAKERS or "tool_calls" in turn.extra for turn in turns):
            raise ModelError(
                "The data holds calls, results or definitions of tools, which an encoder-decoder "
                "model has no form for. Take them out of the data, or choose another model."
            )
        if len(turns) == 1:
            return "\n\n".join([*system, turns[0].content])
        lines = [f"{_SPEAKERS[turn.role]}: {turn.content}" for turn in turns]
        return "\n\n".join([*system, "\n".join(lines)])

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        return self.encode_prompts([messages])[0]

    def answer_ids(self, messages: Sequence[Message], answer: str) -> list[int]:
        return self.encode_answers([(messages, answer)])[0]

    def encode_prompts(self, prompts: Sequence[Sequence[Message]]) -> list[list[int]]:
        return self._ended([self.prompt(messages) for messages in prompts])

    def encode_answers(self, pairs: Sequence[tuple[Sequence[Message], str]]) -> list[list[int]]:
        return self._ended([answer for _, answer in pairs])

    def encode_pairs(
        self, pairs: Sequence[tuple[Sequence[Message], str]]
    ) -> tuple[list[list[int]], list[list[int]]]:
        return self.encode_prompts([messages for messages, _ in pairs]), self.encode_answers(pairs)

    def length(self, prompt: int, answer: int) -> int:
        """Tokens of the longer of the two sequences: encoder and decoder are apart."""
        return max(prompt, answer)

    def keeps_reasoning(self, tag: str) -> bool:
        """Answers are written as they are."""
        return True

    def _ended(self, texts: Sequence[str]) -> list[list[int]]:
        marked = [self._marks.mark(text) for text in texts]
        return [[*ids, self.end_of_turn] for ids in self._encoder.encode(marked)]
