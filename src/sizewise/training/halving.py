"""Likelihood of a validation batch, in halves where memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from sizewise.errors import OutOfMemoryError
from sizewise.evaluation.device import free_memory, is_out_of_memory
from sizewise.training.loss import answer_loss

Batch = Mapping[str, Any]
Score = Callable[[Batch], tuple[Tensor, Tensor]]


def summed_nll(score: Score, batch: Batch) -> tuple[Tensor, int]:
    """Return the summed negative log-likelihood (nats) of a batch's answers, and their tokens.

    Sums of halves are the sum of the whole, so that a validation batch which does not fit never
    touches the batch of training.

    Args:
        score: batch → logits (N, V) and answer tokens (N,).
        batch: tensors of B examples.

    Raises:
        OutOfMemoryError: a single example did not fit.
    """
    try:
        logits_NV, targets_N = score(batch)
        return answer_loss(logits_NV, targets_N, 1)[1], targets_N.numel()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Outside the handler, so that the traceback no longer holds the failed batch's tensors.
    free_memory()
    first, second = (summed_nll(score, half) for half in halves(batch))
    return first[0] + second[0], first[1] + second[1]


def halves(batch: Batch) -> list[Batch]:
    """Cut a batch between its examples.

    Raises:
        OutOfMemoryError: there is only one.
    """
    rows = len(batch["input_ids"])
    if rows < 2:
        raise OutOfMemoryError(
            "Memory ran out while one single validation example was scored. Lower "
            "dataset.max_length, or use quantization=nf4."
        )
    cuts = (slice(None, rows // 2), slice(rows // 2, None))
    return [
        {key: value[cut] if isinstance(value, Tensor) else value for key, value in batch.items()}
        for cut in cuts
    ]
