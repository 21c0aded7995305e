"""Token ids to padded tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sizewise.data.tokens.table import Encoded
from sizewise.errors import DataError

IGNORED = -100
"""Label of every position that is not scored."""


def collate_training(
    items: Sequence[Encoded], pad_token_id: int, step_tokens: int, multiple: int = 8
) -> dict[str, Any]:
    """Pad prompt + answer on the right, to a multiple of ``multiple`` tokens.

    Masks are made from lengths, so ``pad_token_id`` may equal EOS. ``step_tokens``: answer tokens
    of the whole optimiser step.

    Returns:
        ``input_ids``, ``attention_mask`` and ``labels`` of shape (B, T) (labels are not shifted,
        −100 outside the answer) and the int ``step_tokens``.

    Raises:
        DataError: no position is to be learnt.
    """
    _require_answers(items)
    joined = [item.prompt_ids + item.answer_ids for item in items]
    labels = [[IGNORED] * len(item.prompt_ids) + item.answer_ids for item in items]
    return {
        "input_ids": pad(joined, pad_token_id, multiple),
        "attention_mask": pad([[1] * len(ids) for ids in joined], 0, multiple),
        "labels": pad(labels, IGNORED, multiple),
        "step_tokens": step_tokens,
    }


def collate_seq2seq(
    items: Sequence[Encoded], pad_token_id: int, step_tokens: int, multiple: int = 8
) -> dict[str, Any]:
    """Pad encoder inputs and decoder targets on the right, each to its own length.

    Returns:
        ``input_ids`` and ``attention_mask`` of shape (B, S), ``labels`` of shape (B, T) with −100
        as padding, and the int ``step_tokens``.

    Raises:
        DataError: no position is to be learnt.
    """
    _require_answers(items)
    prompts = [item.prompt_ids for item in items]
    return {
        "input_ids": pad(prompts, pad_token_id, multiple),
        "attention_mask": pad([[1] * len(ids) for ids in prompts], 0, multiple),
        "labels": pad([item.answer_ids for item in items], IGNORED, 1),
        "step_tokens": step_tokens,
    }


def collate_classes(
    items: Sequence[Encoded], pad_token_id: int, step_tokens: int, multiple: int = 8
) -> dict[str, Any]:
    """Pad texts to be classified on the right.

    Args:
        items: the one answer id of each is the number of its class.

    Returns:
        ``input_ids`` and ``attention_mask`` (B, T), ``labels`` (B,), the int ``step_tokens``
        (examples of the whole optimiser step).

    Raises:
        DataError: no example has a class.
    """
    _require_answers(items)
    texts = [item.prompt_ids for item in items]
    return {
        "input_ids": pad(texts, pad_token_id, multiple),
        "attention_mask": pad([[1] * len(ids) for ids in texts], 0, multiple),
        "labels": torch.tensor([item.answer_ids[0] for item in items]),
        "step_tokens": step_tokens,
    }


def pad(rows: Sequence[Sequence[int]], value: int, multiple: int = 1, left: bool = False) -> Tensor:
    """Pad rows of ids to one length, a multiple of ``multiple``: (B, T), int64."""
    longest = max(len(row) for row in rows)
    width = -(-longest // multiple) * multiple
    padded = torch.full((len(rows), width), value, dtype=torch.long)
    for place, row in enumerate(rows):
        where = slice(width - len(row), width) if left else slice(0, len(row))
        padded[place, where] = torch.as_tensor(row, dtype=torch.long)
    return padded


def pad_with_mask(
    rows: Sequence[Sequence[int]], value: int, left: bool, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return ``rows`` as tokens [B, T] and their mask [B, T] (1 where there is a token)."""
    tokens_BT = pad(rows, value, left=left)
    mask_BT = pad([[1] * len(row) for row in rows], 0, left=left)
    return tokens_BT.to(device), mask_BT.to(device)


def _require_answers(items: Sequence[Encoded]) -> None:
    if not any(item.answer_ids for item in items):
        raise DataError(
            f"A batch of {len(items)} examples has no answer token to learn from. "
            "Check that dataset.answer is not empty and dataset.max_length leaves room for it."
        )
