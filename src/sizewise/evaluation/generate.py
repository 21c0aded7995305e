"""Batched answers: decoder-only prompts left-padded, encoder prompts right-padded."""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.generation.logits_process import (
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from sizewise.config.evaluation import GenerationConfig
from sizewise.data.tokens.template import Template
from sizewise.devices import evaluating, synchronize
from sizewise.evaluation.drafts import Known
from sizewise.evaluation.prompts import CachedPrompts, Prompts, open_prompts
from sizewise.evaluation.text import decode_answer, opened_thought, pad_id
from sizewise.models.likelihood import target_log_probs

MOST_HELD = 2**18
"""Entries of logits of several steps that wait for their probabilities (1 MiB in fp32)."""


@dataclass(frozen=True)
class Generated:
    """One generated answer.

    Attributes:
        token_ids: new tokens, up to and including the end of turn.
        text: those tokens decoded, special tokens and surrounding white space removed; it begins
            with the tag of a thought where the prompt opened one.
        finished: whether an end-of-turn token was generated.
        latency: seconds of the whole batch, device synchronised; NaN where some tokens were known
            or other jobs had a part in it.
        token_log_prob: mean natural-log probability of the new tokens under the model's own
            distribution (before penalties, temperature and truncation).
    """

    token_ids: tuple[int, ...]
    text: str
    finished: bool
    latency: float
    token_log_prob: float


def generate_batch(
    model: Any,
    prompt_ids: Sequence[Sequence[int]],
    template: Template,
    generation: GenerationConfig,
    example_ids: Sequence[str] | None = None,
    stopping: transformers.StoppingCriteria | None = None,
) -> list[Generated]:
    """Answer every prompt of one batch; see ``generate_behind``.

    Raises:
        EvaluationError: a prompt is empty.
    """
    prompts = open_prompts(model, prompt_ids, pad_id(template))
    return generate_behind(prompts, template, generation, example_ids, stopping)


def generate_behind(
    prompts: Prompts,
    template: Template,
    generation: GenerationConfig,
    example_ids: Sequence[str] | None = None,
    stopping: transformers.StoppingCriteria | None = None,
) -> list[Generated]:
    """Answer every prompt of one batch; nothing of the model's own generation defaults counts.

    Args:
        prompts: read by this where they were not yet.
        generation: decoding; ``max_new_tokens`` always bounds an answer.
        example_ids: seeds of sampled answers, one per prompt (default: their positions).
        stopping: asked after every new token; may watch the answers and end them early.
    """
    device = prompts.tokens.device
    names = example_ids or [str(i) for i in range(len(prompts.ids))]
    synchronize(device)
    started = time.perf_counter()
    rows = _decode(prompts, template, generation, names, stopping)
    synchronize(device)
    latency = time.perf_counter() - started
    return _answers(rows, prompts, template, latency)


Decode = Callable[[Prompts, Template, GenerationConfig, Sequence[str]], list[Generated]]
"""Answers the prompts of one batch, whose names are given, as ``generate_behind`` does."""


def generate_rest(
    prompts: CachedPrompts,
    template: Template,
    generation: GenerationConfig,
    known: Sequence[Known],
) -> list[Generated]:
    """Answer the same greedily where the first tokens are known; complete answers cost nothing.

    The time that this takes says nothing of an answer's, so there is no latency (NaN).
    """
    most = generation.max_new_tokens
    rows = [Known(k.tokens[:most], k.log_probs[:most]) for k in known]
    open_rows = [i for i, row in enumerate(rows) if not row.complete(template.stop_ids, most)]
    if open_rows:
        started = [rows[i].tokens for i in open_rows]
        left = torch.tensor([most - len(tokens) for tokens in started])
        rest = prompts.going_on(open_rows, started)
        longest = replace(generation, max_new_tokens=int(left.max()))
        limit = OwnLimits(rest.tokens.shape[1], left)
        names = [str(i) for i in open_rows]
        for i, new in zip(open_rows, _decode(rest, template, longest, names, limit), strict=True):
            tokens, log_probs = rows[i].tokens + new.tokens, rows[i].log_probs + new.log_probs
            rows[i] = Known(tokens[:most], log_probs[:most])
    return _answers(rows, prompts, template, float("nan"))


def _decode(
    prompts: Prompts,
    template: Template,
    generation: GenerationConfig,
    names: Sequence[str],
    stopping: transformers.StoppingCriteria | None,
) -> list[Known]:
    """Return the new tokens of every row; behind its end of turn there may be padding."""
    inner, mask_BT = prompts.inner, prompts.mask
    seq2seq = bool(inner.config.is_encoder_decoder)
    recorder = ConfidenceRecorder()
    start_mask_BT = mask_BT.new_zeros(len(names), 1) if seq2seq else mask_BT
    with evaluating(prompts.model), own_defaults_set_aside(inner):
        sequences = inner.generate(
            input_ids=prompts.tokens,
            attention_mask=mask_BT,
            **prompts.generation_inputs(),
            generation_config=_limits(inner, template, generation),
            logits_processor=decoding_steps(generation, recorder, start_mask_BT, names),
            stopping_criteria=transformers.StoppingCriteriaList([stopping] if stopping else []),
        )
    new_BT = sequences[:, 1 if seq2seq else mask_BT.shape[1] :]
    rows = zip(new_BT.tolist(), recorder.log_probs(new_BT).tolist(), strict=True)
    return [Known(tuple(tokens), tuple(log_probs)) for tokens, log_probs in rows]


class OwnLimits(transformers.StoppingCriteria):
    """Ends every row after a number of new tokens of its own."""

    def __init__(self, start: int, left_B: Tensor) -> None:
        self._start, self._left_B = start, left_B

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Return which rows have reached theirs."""
        return (self._left_B <= input_ids.shape[1] - self._start).to(input_ids.device)


@contextmanager
def own_defaults_set_aside(model: Any) -> Iterator[None]:
    """Replace the model's generation config by an empty one: ``generate`` merges its values."""
    kept = model.generation_config
    model.generation_config = transformers.GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = kept


def _limits(model: Any, template: Template, generation: GenerationConfig) -> Any:
    """Always greedy for ``generate``: a sampled token is drawn by our own last decoding step."""
    start = getattr(model.config, "decoder_start_token_id", None)
    return transformers.GenerationConfig(
        max_new_tokens=generation.max_new_tokens,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        pad_token_id=pad_id(template),
        eos_token_id=list(template.stop_ids) or None,
        decoder_start_token_id=start,
    )


def _answers(
    rows: Sequence[Known], prompts: Prompts, template: Template, latency: float
) -> list[Generated]:
    stops = set(template.stop_ids)
    answers = []
    for row, ids in zip(rows, prompts.ids, strict=True):
        end = next((i for i, token in enumerate(row.tokens) if token in stops), None)
        length = len(row.tokens) if end is None else end + 1
        confidence = sum(row.log_probs[:length]) / length
        text = decode_answer(template, row.tokens[:length], _opened(prompts, template, ids))
        answers.append(Generated(row.tokens[:length], text, end is not None, latency, confidence))
    return answers


def _opened(prompts: Prompts, template: Template, ids: Sequence[int]) -> str:
    if prompts.inner.config.is_encoder_decoder:
        return ""
    return opened_thought(template.tokenizer, ids)


def _signed(step: Any) -> Any:
    """Keep a function's signature, for which ``generate`` asks at every token."""
    step.__signature__ = inspect.signature(step)
    return step


class ConfidenceRecorder(LogitsProcessor):
    """Keeps the log-probability of every chosen token under the model's own distribution.

    It holds the logits of a few steps, to compute with them together, and of no more than one where
    they are ``MOST_HELD``: with a vocabulary of 262k, keeping all of them would cost more memory
    than the model. On a GPU ``generate`` may run a few steps too many and take them back; columns
    beyond the kept tokens are ignored.
    """

    def __init__(self) -> None:
        self._known: list[Tensor] = []
        self._held: list[Tensor] = []

    @_signed
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Remember this step's logits [B, V], which pass unchanged."""
        if (len(self._held) + 1) * scores.numel() > MOST_HELD:
            self._compute(input_ids)
        self._held.append(scores.detach())
        return scores

    def log_probs(self, new_tokens_BT: Tensor) -> Tensor:
        """Return the log-probabilities [B, T] of the finished sequences' new tokens, once."""
        steps = new_tokens_BT.shape[1]
        known = sum(part.shape[1] for part in self._known)
        self._held = self._held[: max(0, steps - known)]
        self._compute(new_tokens_BT)
        return torch.cat(self._known, dim=1)[:, :steps]

    def _compute(self, tokens_BT: Tensor) -> None:
        """Take the probabilities of the last tokens from the logits that are held."""
        steps = len(self._held)
        if steps:
            chosen = tokens_BT[:, -steps:].t().flatten()
            together = self._held[0] if steps == 1 else torch.cat(self._held)
            log_probs = target_log_probs(together, chosen)
            self._known.append(log_probs.view(steps, -1).t())
            self._held = []


class RepetitionPenalty(LogitsProcessor):
    """Divides positive and multiplies negative logits of tokens seen before (Keskar et al. 2019).

    Padding does not count as seen, otherwise an answer would depend on its neighbours in the batch.
    """

    def __init__(self, penalty: float, prompt_mask_BT: Tensor) -> None:
        self.penalty = penalty
        self.prompt_mask_BT = prompt_mask_BT.bool()

    @_signed
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
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

    @_signed
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


def _uniform(name: str, steps: int, seed: int) -> Tensor:
    """Single-precision numbers in double: times the total they stay strictly below it."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.rand(steps, generator=generator, dtype=torch.float32).double()
