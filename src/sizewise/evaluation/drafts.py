"""Greedy tokens known before decoding: those on which a draft and the model agree.

A draft is read in one pass, and the model's own best token after each of its tokens with it. Up to
the first disagreement, and with the token that the model prefers there, that is what greedy
decoding writes (Leviathan et al. 2023, arXiv 2211.17192, for the greedy case; drafts that form a
tree: Miao et al. 2024, arXiv 2305.09781). Here the drafts are read anyway, since their likelihoods
are wanted: the reference, and the tree of all candidates.

Passes of other shapes round differently, so a token counts only where it leads by far more than
that (``MARGIN``); from the first one that does not, decoding goes on as without a draft.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sizewise.config.evaluation import GenerationConfig
from sizewise.models.base import quantized_linears

MARGIN = 1e-3
"""Lead of the best logit over the next one, relative to both; fp32 rounds to some 1e-6 of them."""


@dataclass(frozen=True)
class Known:
    """The first tokens of one answer, each with its natural-log probability."""

    tokens: tuple[int, ...] = ()
    log_probs: tuple[float, ...] = ()

    def complete(self, stops: Sequence[int], most: int) -> bool:
        """Whether nothing is left to decode."""
        return len(self.tokens) >= most or self.tokens[-1:] in {(stop,) for stop in stops}


@dataclass(frozen=True)
class Best:
    """The best token of each row of logits [..., V]: token, log-probability, and if it is sure."""

    tokens: Tensor
    log_probs: Tensor
    sure: Tensor

    @classmethod
    def of(cls, logits: Tensor, log_probs: Tensor) -> Best:
        """Look at logits and their log-softmax."""
        top = logits.topk(2, dim=-1)
        first, second = top.values.unbind(-1)
        lead = MARGIN * (1 + first.abs() + second.abs())
        chosen = top.indices[..., :1]
        found = log_probs.gather(-1, chosen)
        return cls(chosen[..., 0].cpu(), found[..., 0].cpu(), (first - second > lead).cpu())


def can_draft(inner: Any, generation: GenerationConfig) -> bool:
    """Whether texts are sure to stay the same: greedy, and computed in fp32 throughout.

    int8 products depend on what else is in a batch, and TF32 rounds to 1e-3.
    """
    if generation.do_sample or generation.repetition_penalty != 1.0:
        return False
    if inner.dtype != torch.float32 or inner.device.type not in ("cpu", "cuda"):
        return False
    if torch.get_float32_matmul_precision() != "highest":
        return False
    if torch.is_autocast_enabled(inner.device.type):
        return False
    linears = quantized_linears(inner).values()
    return all(getattr(layer, "compute_dtype", None) == torch.float32 for layer in linears)


def agreed(
    logits_NV: Tensor, drafts: Sequence[Sequence[int]], stops: Sequence[int], most: int
) -> list[Known]:
    """Return what is known of each answer.

    Args:
        logits_NV: those that predict the N tokens of all drafts, one after the other.
        drafts: one per answer; an empty one says nothing.
        stops: tokens that end an answer.
        most: tokens of an answer at most.
    """
    logits_NV = logits_NV.float()
    best = Best.of(logits_NV, logits_NV.log_softmax(-1))
    rows = zip(best.tokens.tolist(), best.log_probs.tolist(), best.sure.tolist(), strict=True)
    found = []
    for draft in drafts:
        steps = [next(rows) for _ in draft]
        tokens: list[int] = []
        log_probs: list[float] = []
        for wanted, (token, log_prob, sure) in zip(draft, steps, strict=True):
            if not sure or len(tokens) == most:
                break
            tokens.append(token)
            log_probs.append(log_prob)
            if token != wanted or token in stops:
                break
        found.append(Known(tuple(tokens), tuple(log_probs)))
    return found


def longer(ours: Sequence[Known], theirs: Sequence[Known]) -> list[Known]:
    """Return of each answer what reaches further."""
    pairs = zip(ours, theirs, strict=True)
    return [max(pair, key=lambda known: len(known.tokens)) for pair in pairs]
