"""Token ids to padded tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    Labels are made from lengths, so ``pad_token_id`` may equal EOS; no answer sees the padding, and
    there is no mask. ``step_tokens``: answer tokens of the whole optimiser step.

    Returns:
        ``input_ids`` and ``labels`` of shape (B, T) (labels are not shifted, −100 outside the
        answer), ``answer_rows`` and ``answer_ids`` (N,) as in ``answer_index``, and the ints
        ``step_tokens``, ``tokens`` and ``answer_tokens`` (of this batch, padding excluded).

    Raises:
        DataError: no position is to be learnt.
    """
    joined = [item.prompt_ids + item.answer_ids for item in items]
    labels = [[IGNORED] * len(item.prompt_ids) + item.answer_ids for item in items]
    return {
        "input_ids": pad(joined, pad_token_id, multiple),
        **_answers(items, pad(labels, IGNORED, multiple), step_tokens, shifted=True),
    }


def collate_seq2seq(
    items: Sequence[Encoded], pad_token_id: int, step_tokens: int, multiple: int = 8
) -> dict[str, Any]:
    """Pad encoder inputs and decoder targets on the right, each to its own length.

    Returns:
        ``input_ids`` and ``attention_mask`` of shape (B, S), whether these are ``padded``,
        ``labels`` of shape (B, T) with −100 as padding, and the rest as ``collate_training`` does.

    Raises:
        DataError: no position is to be learnt.
    """
    labels = pad([item.answer_ids for item in items], IGNORED, 1)
    return {
        **_texts([item.prompt_ids for item in items], pad_token_id, multiple),
        **_answers(items, labels, step_tokens, shifted=False),
    }


def _texts(
    rows: Sequence[Sequence[int]], pad_token_id: int, multiple: int
) -> dict[str, Tensor | bool]:
    """Return an encoder's inputs; ``padded`` spares whoever makes a mask a look at this one."""
    ids_BT = pad(rows, pad_token_id, multiple)
    return {
        "input_ids": ids_BT,
        "attention_mask": pad([[1] * len(row) for row in rows], 0, multiple),
        "padded": sum(map(len, rows)) < ids_BT.numel(),
    }


def _answers(
    items: Sequence[Encoded], labels: Tensor, step_tokens: int, shifted: bool
) -> dict[str, Any]:
    _require_answers(items)
    rows_N, ids_N = answer_index(labels, shifted)
    answer_tokens = sum(len(item.answer_ids) for item in items)
    return {
        "labels": labels,
        "answer_rows": rows_N,
        "answer_ids": ids_N,
        "tokens": answer_tokens + sum(len(item.prompt_ids) for item in items),
        "answer_tokens": answer_tokens,
        "step_tokens": step_tokens,
    }


def answer_index(labels: Tensor, shifted: bool) -> tuple[Tensor, Tensor]:
    """Return which of a batch's B·T positions predict an answer token, and the tokens: both (N,).

    How many there are is not known before the labels (B, T) have been read: made on the host, where
    batches are put together, this spares a GPU that everybody waits for it.

    ``shifted``: a position predicts the next one's label, and nothing predicts the first; otherwise
    its own.
    """
    if shifted:
        labels = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
    flat = labels.flatten()
    rows_N = (flat != IGNORED).nonzero().squeeze(1)
    return rows_N, flat[rows_N]


def collate_classes(
    items: Sequence[Encoded], pad_token_id: int, step_tokens: int, multiple: int = 8
) -> dict[str, Any]:
    """Pad texts to be classified on the right.

    Args:
        items: the one answer id of each is the number of its class.

    Returns:
        ``input_ids`` and ``attention_mask`` (B, T), whether these are ``padded``, ``labels`` (B,),
        and the ints ``step_tokens`` (examples of the whole optimiser step), ``tokens`` and
        ``answer_tokens`` (of this batch).

    Raises:
        DataError: no example has a class.
    """
    _require_answers(items)
    texts = [item.prompt_ids for item in items]
    return {
        **_texts(texts, pad_token_id, multiple),
        "labels": torch.tensor([item.answer_ids[0] for item in items]),
        "tokens": sum(map(len, texts)),
        "answer_tokens": len(items),
        "step_tokens": step_tokens,
    }


def on_device(batch: Mapping[str, Any], device: torch.device | str) -> dict[str, Any]:
    """Return a batch with its tensors on ``device``."""
    return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}


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
