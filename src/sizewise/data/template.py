"""Conversations to token ids: a chat template with one answer mask for training and inference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sizewise.data.control import BREAK, Neutraliser, PieceEncoder, control_tokens, special_tokens
from sizewise.data.example import Message
from sizewise.data.render import Renderer
from sizewise.data.tokenizer_hash import hash_parts, tokenizer_fingerprint
from sizewise.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_LIMIT = 10**7
Pair = tuple[Sequence[Message], str]


class ChatTemplate:
    """Writes prompts and answers for a causal model.

    Prompt and answer are rendered together, cut where the prompt ends, encoded apart and joined:
    the answer's ids are exactly those of the rendered answer and one end-of-turn token. Prompts
    begin with exactly one BOS where the tokenizer or the template wants one. Control tokens within
    people's text are encoded as text.

    Args:
        tokenizer: any Hugging Face tokenizer.
        chat_template: None (the tokenizer's own), ``plain`` (for bases without one: prompt, an
            empty line, answer) or the path of a jinja file.
        template_kwargs: reach the template in training and inference alike; ``date_string`` is
            pinned where the template prints a date.

    Raises:
        ModelError: there is no template, it cannot be read, or there is no end-of-turn token.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        chat_template: str | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self._renderer = Renderer(tokenizer, chat_template, dict(template_kwargs or {}))
        self._prompt_marks = Neutraliser(control_tokens(tokenizer, self._renderer.source))
        self._answer_marks = Neutraliser(special_tokens(tokenizer))
        self._encoder = PieceEncoder(tokenizer)
        self.end_of_turn = self._find_end_of_turn()

    @property
    def template_kwargs(self) -> dict[str, Any]:
        """Arguments of the template with pinned ones, as stored with an adapter."""
        return dict(self._renderer.kwargs)

    @property
    def source(self) -> str:
        """The template's jinja text."""
        return self._renderer.source

    @property
    def folds_system(self) -> bool:
        """Whether the system text goes into the first user turn because there is no such role."""
        return self._renderer.folds_system

    @property
    def context(self) -> int | None:
        """Longest sequence that the tokenizer's settings name, None where they name none."""
        limit = int(self.tokenizer.model_max_length)
        return limit if limit < NO_LIMIT else None

    @property
    def stop_ids(self) -> list[int]:
        """Ids that end an answer: the end-of-turn token and the tokenizer's own EOS."""
        eos = self.tokenizer.eos_token_id
        return sorted({self.end_of_turn} | ({int(eos)} if eos is not None else set()))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of tokenizer, template and its arguments (16 hex digits)."""
        tokenizer = tokenizer_fingerprint(self.tokenizer)
        return hash_parts("causal", tokenizer, self.source, self.template_kwargs)

    def prompt(self, messages: Sequence[Message]) -> str:
        """Render the prompt, up to where the answer begins."""
        return self._prompt(messages).replace(BREAK, "")

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Encode the prompt."""
        return self.encode_prompts([messages])[0]

    def answer_ids(self, messages: Sequence[Message], answer: str) -> list[int]:
        """Encode the answer as it is rendered after ``messages``, with the end-of-turn token."""
        return self.encode_answers([(messages, answer)])[0]

    def encode_prompts(self, prompts: Sequence[Sequence[Message]]) -> list[list[int]]:
        """Encode many prompts at once."""
        return self._encode_prompts([self._prompt(messages) for messages in prompts])

    def encode_answers(self, pairs: Sequence[Pair]) -> list[list[int]]:
        """Encode many answers at once, each with the end-of-turn token."""
        return self._encode_answers([self._answer(*pair) for pair in pairs])

    def encode_pairs(self, pairs: Sequence[Pair]) -> tuple[list[list[int]], list[list[int]]]:
        """Encode prompts and answers, rendering each prompt once."""
        prompts: list[str] = []
        answers: list[str] = []
        for messages, answer in pairs:
            turns = self._marked(messages)
            prompts.append(self._renderer.prompt(turns))
            marked = self._answer_marks.mark(answer)
            answers.append(self._renderer.answer(turns, marked, prompts[-1]))
        return self._encode_prompts(prompts), self._encode_answers(answers)

    def length(self, prompt: int, answer: int) -> int:
        """Tokens of the longest sequence that the model sees: prompt and answer are joined."""
        return prompt + answer

    def _encode_prompts(self, texts: Sequence[str]) -> list[list[int]]:
        return [self._one_bos(ids) for ids in self._encoder.encode(texts)]

    def _encode_answers(self, texts: Sequence[str]) -> list[list[int]]:
        return [[*ids, self.end_of_turn] for ids in self._encoder.encode(texts, inner=True)]

    def _prompt(self, messages: Sequence[Message]) -> str:
        return self._renderer.prompt(self._marked(messages))

    def _answer(self, messages: Sequence[Message], answer: str) -> str:
        return self._renderer.answer(self._marked(messages), self._answer_marks.mark(answer))

    def _marked(self, messages: Sequence[Message]) -> list[dict[str, str]]:
        return [
            {
                "role": message.role,
                "content": (
                    self._answer_marks if message.role == "assistant" else self._prompt_marks
                ).mark(message.content),
            }
            for message in messages
        ]

    def _one_bos(self, ids: list[int]) -> list[int]:
        """Leave exactly one BOS where the tokenizer or the template puts one."""
        bos = self.tokenizer.bos_token_id
        if bos is None:
            return ids
        begins = bool(ids) and ids[0] == bos
        start = 0
        while start < len(ids) and ids[start] == bos:
            start += 1
        return [int(bos), *ids[start:]] if begins or self._adds_bos else ids

    @cached_property
    def _adds_bos(self) -> bool:
        ids = self.tokenizer("a")["input_ids"]
        return bool(ids) and ids[0] == self.tokenizer.bos_token_id

    def _find_end_of_turn(self) -> int:
        """Take the one token that closes a turn, else (none, or several) the tokenizer's EOS."""
        closing = self._encoder.encode([self._renderer.closing.strip()])[0]
        if len(closing) == 1:
            return closing[0]
        if self.tokenizer.eos_token_id is None:
            raise ModelError(
                f"The chat template ends a turn with {self._renderer.closing!r}, which is not one "
                "token of the tokenizer, and the tokenizer has no EOS token: an answer would have "
                "no end. Add the token to the tokenizer, or set model.chat_template."
            )
        return int(self.tokenizer.eos_token_id)
