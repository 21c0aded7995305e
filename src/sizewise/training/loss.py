"""The loss of an optimiser step: cross entropy summed over answer tokens, over their number."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def answer_loss(
    logits_NV: Tensor, targets_N: Tensor, step_tokens: int | Tensor, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Cross entropy of one micro-batch as its share of the whole optimiser step.

    The sum over the micro-batches of a step (and over ranks) is the mean over the step's answer
    tokens, so that k accumulated micro-batches give exactly the gradient of the one large batch;
    a mean of their means would not, because they hold different numbers of tokens.

    Args:
        logits_NV: scores of the vocabulary at the N answer positions.
        targets_N: the N answer tokens.
        step_tokens: answer tokens of the whole step, over its micro-batches and ranks.
        label_smoothing: share of the target's mass spread over the vocabulary (Szegedy et al.
            2016, section 7); it changes the loss, never the reported likelihood.

    Returns:
        The loss (scalar with a gradient) and the plain summed negative log-likelihood in nats
        (scalar without one).
    """
    logits_NV = logits_NV.float()
    if not label_smoothing:
        summed = nn.functional.cross_entropy(logits_NV, targets_N, reduction="sum")
        return summed / step_tokens, summed.detach()
    log_probs_NV = torch.log_softmax(logits_NV, dim=-1)
    summed = -log_probs_NV.gather(1, targets_N.unsqueeze(1)).sum()
    uniform = -log_probs_NV.mean(dim=-1).sum()
    loss = (1 - label_smoothing) * summed + label_smoothing * uniform
    return loss / step_tokens, summed.detach()
