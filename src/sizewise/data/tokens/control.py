"""Control tokens inside people's text: read as text, never obeyed.

A break mark (a private-use character) is put after the first character of every control token in
the text before a template renders it. The rendered text is cut at the marks and its pieces are
encoded one by one, so that no piece holds a whole control token. Other text is not touched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


BREAK = "\U000f0002"
_SHAPE = re.compile(r"<\|.+\|>|\[/?[A-Z_]+\]", re.DOTALL)


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Tokens with a meaning of their own (begin, end, roles, padding)."""
    added = tokenizer.added_tokens_decoder.values()
    named = [str(token) for token in tokenizer.all_special_tokens]
    return _usable([token.content for token in added if token.special] + named)


def control_tokens(tokenizer: PreTrainedTokenizerBase, template: str) -> list[str]:
    """Special tokens and those added tokens that the template writes or that look like roles."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values()]
    others = [text for text in added if text in template or _SHAPE.fullmatch(text)]
    return _usable(special_tokens(tokenizer) + others)


def _usable(tokens: Iterable[str]) -> list[str]:
    return sorted({t for t in tokens if len(t) > 1 and not t.isspace()}, key=len, reverse=True)


class Neutraliser:
    """Marks control tokens in texts and encodes marked texts."""

    def __init__(self, tokens: Sequence[str]) -> None:
        options = "|".join(map(re.escape, tokens)) or "(?!)"
        self._pattern = re.compile(f"(?=(?:{options}))(.)", re.DOTALL)

    def mark(self, text: str) -> str:
        return self._pattern.sub(rf"\1{BREAK}", text.replace(BREAK, ""))

    def mark_all(self, value: Any) -> Any:
        """Mark every text within mappings and lists; keys are not people's text."""
        if isinstance(value, Mapping):
            return {key: self.mark_all(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.mark_all(item) for item in value]
        return self.mark(value) if isinstance(value, str) else value


class PieceEncoder:
    """Encodes rendered texts, piece by piece where they are marked, without adding tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._lead = self._ids(["\n"])[0]
        self._adds_space = self._ids(["a"])[0] != self._ids(["\na"])[0][len(self._lead) :]

    def encode(self, texts: Sequence[str], inner: bool = False) -> list[list[int]]:
        """Encode texts, possibly with break marks, in one call of the tokenizer.

        ``inner``: the texts go on from other text, so that no space is put before them.
        """
        pieces = [
            (number, piece, self._adds_space and (inner or place > 0))
            for number, text in enumerate(texts)
            for place, piece in enumerate(text.split(BREAK))
            if piece
        ]
        ids: list[list[int]] = [[] for _ in texts]
        encoded = self._ids([f"\n{piece}" if led else piece for _, piece, led in pieces])
        for (number, _, led), own in zip(pieces, encoded, strict=True):
            ids[number] += own[len(self._lead) :] if led else own
        return ids

    def _ids(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        encoded = self._tokenizer(
            texts,
            add_special_tokens=False,
            verbose=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        return [list(ids) for ids in encoded["input_ids"]]
