"""Log-probability of given answers: answer tokens only, the same for any batch size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sizewise.data.batches.collate import IGNORED, pad_with_mask
from sizewise.data.tokens.encode import Encoded
from sizewise.devices import BatchSize, device_of, evaluating, halve_on_oom, split
from sizewise.errors import EvaluationError
from sizewise.models.adapter.wrapping import base_of
from sizewise.models.head import answer_logits, answer_targets

CHUNK_ROWS = 256


def answer_log_probs(
    model: Any, encoded: Sequence[Encoded], batch_size: int, padding: int = 0
) -> list[float]:
    """Return the summed natural-log probability of each answer given its prompt.

    Where memory runs out the rest goes on with batches of half the size.

    ``padding`` is a valid token id; it is masked.

    Raises:
        EvaluationError: a prompt or an answer has no token.
        OutOfMemoryError: a single example did not fit.
    """
    _check(encoded)
    lengths = [len(item.prompt_ids) + len(item.answer_ids) for item in encoded]
    sizes = BatchSize(batch_size, "the likelihood of one single answer was computed")
    totals = [0.0] * len(encoded)
    for batch, sums in halve_on_oom(
        plan_batches(lengths, batch_size), sizes,
        lambda rows: batch_log_probs(model, [encoded[i] for i in rows], padding),
    ):  # fmt: skip
        for i, value in zip(batch, sums, strict=True):
            totals[i] = value
    return totals


def batch_log_probs(model: Any, items: Sequence[Encoded], padding: int = 0) -> list[float]:
    """Return the same of all ``items`` in one forward pass; out of memory is the caller's."""
    _check(items)
    seq2seq = bool(base_of(model).config.is_encoder_decoder)
    batch = _batch(items, padding, seq2seq, device_of(model))
    with evaluating(model):
        log_probs_N = target_log_probs(
            answer_logits(model, batch), answer_targets(batch, seq2seq=seq2seq)
        )
    parts = log_probs_N.double().cpu().split([len(item.answer_ids) for item in items])
    return [float(part.sum()) for part in parts]


def _check(items: Sequence[Encoded]) -> None:
    for i, item in enumerate(items):
        if not item.prompt_ids or not item.answer_ids:
            raise EvaluationError(f"Example {i} has an empty prompt or answer: nothing to score.")


def target_log_probs(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Return the fp32 log-probability [N] of each target, without a second copy of all logits."""
    parts = [
        -functional.cross_entropy(logits.float(), targets, reduction="none")
        for logits, targets in zip(
            logits_NV.split(CHUNK_ROWS), targets_N.split(CHUNK_ROWS), strict=True
        )
    ]
    return torch.cat(parts)


def _batch(
    items: Sequence[Encoded], padding: int, seq2seq: bool, device: torch.device
) -> dict[str, Tensor]:
    """Right-padded inputs; labels are aligned with them, or the decoder's targets for seq2seq."""
    if seq2seq:
        rows, labels = [i.prompt_ids for i in items], [i.answer_ids for i in items]
    else:
        rows = [i.prompt_ids + i.answer_ids for i in items]
        labels = [[IGNORED] * len(i.prompt_ids) + i.answer_ids for i in items]
    tokens_BT, mask_BT = pad_with_mask(rows, padding, left=False, device=device)
    labels_BT, _ = pad_with_mask(labels, IGNORED, left=False, device=device)
    return {"input_ids": tokens_BT, "attention_mask": mask_BT, "labels": labels_BT}


def plan_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Divide positions into batches of similar length, longest first (so memory fails early)."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    return split(order, batch_size)
