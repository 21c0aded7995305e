"""Log-probability of given answers: answer tokens only, the same for any batch size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sizewise.data.batches.collate import collate_seq2seq, collate_training, on_device
from sizewise.data.tokens.table import Encoded
from sizewise.devices import BatchSize, device_of, evaluating, halve_on_oom, split
from sizewise.errors import EvaluationError
from sizewise.models.adapter.wrapping import base_of
from sizewise.models.head import answer_logits

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
    check_scorable(encoded)
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
    check_scorable(items)
    logits_NV = batch_logits(model, items, padding)
    targets = torch.tensor([token for item in items for token in item.answer_ids])
    answers = [item.answer_ids for item in items]
    return summed_log_probs(logits_NV, targets.to(logits_NV.device), answers)


def batch_logits(model: Any, items: Sequence[Encoded], padding: int = 0) -> Tensor:
    """Return logits [N, V] that predict the N answer tokens of all items, one after the other."""
    seq2seq, device = bool(base_of(model).config.is_encoder_decoder), device_of(model)
    collated = (collate_seq2seq if seq2seq else collate_training)(items, padding, 0, multiple=1)
    with evaluating(model):
        return answer_logits(model, on_device(collated, device))


def summed_log_probs(
    logits_NV: Tensor, targets_N: Tensor, answers: Sequence[Sequence[int]]
) -> list[float]:
    """Return the summed natural-log probability of each answer; N: all tokens of all of them."""
    parts = target_log_probs(logits_NV, targets_N).double().cpu().split([len(a) for a in answers])
    return [float(part.sum()) for part in parts]


def check_scorable(items: Sequence[Encoded]) -> None:
    """Raise EvaluationError where a prompt or an answer has no token."""
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


def plan_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Divide positions into batches of similar length, longest first (so memory fails early)."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    return split(order, batch_size)
