"""How prompts and answers become token ids, as encoding sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sizewise.data.example import Message


class PromptFormat(Protocol):
    """What encoding needs of a template; causal and seq2seq each have one."""

    @property
    def fingerprint(self) -> str: ...  # noqa: D102
    @property
    def context(self) -> int | None: ...  # noqa: D102
    def encode_prompts(self, prompts: Sequence[Sequence[Message]]) -> list[list[int]]: ...  # noqa: D102
    def encode_pairs(  # noqa: D102
        self, pairs: Sequence[tuple[Sequence[Message], str]]
    ) -> tuple[list[list[int]], list[list[int]]]: ...
    def length(self, prompt: int, answer: int) -> int: ...  # noqa: D102
