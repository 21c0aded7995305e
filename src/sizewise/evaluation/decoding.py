"""Steps between the model's logits and the next token, none of which depends on the batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.generation.logits_process import (
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from sizewise.config.evaluation import GenerationConfig


class ConfidenceRecorder(LogitsProcessor):
    """Keeps the log-probability of every chosen token under the model's own distribution.

    It holds the logits of one step only: with a vocabulary of 262k, keeping all of them would
    cost more memory than the model. On a GPU ``generate`` may run a few steps too many and take
    them back; columns beyond the kept tokens are ignored.
    """

    def __init__(self) -> None:
        self._columns: list[Tensor] = []
        self._pending: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Record the last choice and remember this step's logits; ``scores`` pass unchanged."""
        if self._pending is not None:
            self._columns.append(_log_prob(self._pending, input_ids[:, -1]))
        self._pending = scores.detach().clone()
        return scores

    def log_probs(self, new_tokens_BT: Tensor) -> Tensor:
        """Return the log-probabilities [B, T] of the finished sequences' new tokens."""
        steps = new_tokens_BT.shape[1]
        columns = self._columns[:steps]
        if len(columns) < steps and self._pending is not None:
            columns = [*columns, _log_prob(self._pending, new_tokens_BT[:, steps - 1])]
        return torch.stack(columns, dim=1)


class RepetitionPenalty(LogitsProcessor):
    """Divides positive and multiplies negative logits of tokens seen before (Keskar et al. 2019).

    Padding does not count as seen, otherwise an answer would depend on its neighbours in the batch.
    """

    def __init__(self, penalty: float, prompt_mask_BT: Tensor) -> None:
        self.penalty = penalty
        self.prompt_mask_BT = prompt_mask_BT.bool()

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return penalised scores [B, V]."""
        prompt = self.prompt_mask_BT.shape[1]
        seen = torch.zeros_like(scores, dtype=torch.int32)
        seen.scatter_add_(1, input_ids[:, :prompt], self.prompt_mask_BT.int())
        seen.scatter_add_(1, input_ids[:, prompt:], torch.ones_like(input_ids[:, prompt:]).int())
        penalised = torch.where(scores < 0, scores * self.penalty, scores / self.penalty)
        return torch.where(seen > 0, penalised, scores)


class SeededChoice(LogitsProcessor):
    """Samples by inverting the cumulative distribution at one uniform number per row and step.

    The numbers come from a generator of each example's own, so that a sampled answer does not
    depend on which other examples share its batch.
    """

    def __init__(self, example_ids: Sequence[str], steps: int, seed: int) -> None:
        self._uniform_BT = torch.stack([_uniform(name, steps, seed) for name in example_ids])
        self._step = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Leave only the drawn token of each row: scores [B, V] with one finite entry per row."""
        cumulative_BV = scores.double().softmax(-1).cumsum(-1)
        last = self._uniform_BT.shape[1] - 1
        uniform_B1 = self._uniform_BT[:, min(self._step, last), None].to(scores.device)
        drawn_B1 = torch.searchsorted(
            cumulative_BV, uniform_B1 * cumulative_BV[:, -1:], right=True
        ).clamp(max=scores.shape[-1] - 1)
        self._step += 1
        return torch.full_like(scores, -torch.inf).scatter(1, drawn_B1, 0.0)


def decoding_steps(
    generation: GenerationConfig,
    recorder: ConfidenceRecorder,
    prompt_mask_BT: Tensor,
    example_ids: Sequence[str],
) -> LogitsProcessorList:
    """Return what is applied to the logits of each step, in order."""
    steps = LogitsProcessorList([recorder])
    if generation.repetition_penalty != 1.0:
        steps.append(RepetitionPenalty(generation.repetition_penalty, prompt_mask_BT))
    if not generation.do_sample:
        return steps
    if generation.temperature != 1.0:
        steps.append(TemperatureLogitsWarper(generation.temperature))
    if generation.top_k:
        steps.append(TopKLogitsWarper(generation.top_k))
    if generation.top_p < 1.0:
        steps.append(TopPLogitsWarper(generation.top_p))
    steps.append(SeededChoice(example_ids, generation.max_new_tokens, generation.seed))
    return steps


def _log_prob(logits_BV: Tensor, tokens_B: Tensor) -> Tensor:
    chosen_B = logits_BV.gather(1, tokens_B[:, None]).squeeze(1)
    return chosen_B - logits_BV.logsumexp(-1)


def _uniform(name: str, steps: int, seed: int) -> Tensor:
    """Single-precision numbers in double: times the total they stay strictly below it."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.rand(steps, generator=generator, dtype=torch.float32).double()
