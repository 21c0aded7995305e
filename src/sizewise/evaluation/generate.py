"""Batched answers: decoder-only prompts left-padded, encoder prompts right-padded."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor

from sizewise.config.evaluation import GenerationConfig
from sizewise.errors import EvaluationError
from sizewise.evaluation.decoding import ConfidenceRecorder, decoding_steps
from sizewise.evaluation.device import device_of, evaluating, inner_model, synchronize
from sizewise.evaluation.template import AnswerTemplate, decode_answer, pad_id


@dataclass(frozen=True)
class Generated:
    """One generated answer.

    Attributes:
        token_ids: new tokens, up to and including the end of turn.
        text: those tokens decoded, special tokens and surrounding white space removed.
        finished: whether an end-of-turn token was generated.
        latency: seconds of the whole batch, device synchronised.
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
    template: AnswerTemplate,
    generation: GenerationConfig,
    example_ids: Sequence[str] | None = None,
    stopping: transformers.StoppingCriteria | None = None,
) -> list[Generated]:
    """Answer every prompt of one batch; nothing of the model's own generation defaults counts.

    Args:
        model: a causal or encoder-decoder transformers model, or a PEFT model around one.
        prompt_ids: B encoded prompts, none empty.
        template: says which tokens end an answer, and decodes.
        generation: decoding; ``max_new_tokens`` always bounds an answer.
        example_ids: seeds of sampled answers, one per prompt (default: their positions).
        stopping: asked after every new token; may watch the answers and end them early.

    Raises:
        EvaluationError: a prompt is empty.
    """
    if any(not prompt for prompt in prompt_ids):
        raise EvaluationError("A prompt has no tokens. Check dataset.prompt and the chat template.")
    inner, device = inner_model(model), device_of(model)
    seq2seq = bool(inner.config.is_encoder_decoder)
    tokens_BT, mask_BT = pad(prompt_ids, pad_id(template), left=not seq2seq, device=device)
    names = example_ids or [str(i) for i in range(len(prompt_ids))]
    recorder = ConfidenceRecorder()
    start_mask_BT = mask_BT.new_zeros(len(names), 1) if seq2seq else mask_BT
    with evaluating(model), own_defaults_set_aside(inner):
        synchronize(device)
        started = time.perf_counter()
        sequences = inner.generate(
            input_ids=tokens_BT,
            attention_mask=mask_BT,
            generation_config=_limits(inner, template, generation),
            logits_processor=decoding_steps(generation, recorder, start_mask_BT, names),
            stopping_criteria=transformers.StoppingCriteriaList([stopping] if stopping else []),
        )
        synchronize(device)
        latency = time.perf_counter() - started
    new_BT = sequences[:, 1 if seq2seq else tokens_BT.shape[1] :]
    return _answers(new_BT, recorder.log_probs(new_BT), template, latency)


def pad(
    rows: Sequence[Sequence[int]], padding: int, left: bool, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return ``rows`` as tokens [B, T] and their mask [B, T] (1 where there is a token)."""
    width = max(len(row) for row in rows)
    tokens_BT = torch.full((len(rows), width), padding, dtype=torch.long)
    mask_BT = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        where = slice(width - len(row), width) if left else slice(0, len(row))
        tokens_BT[i, where] = torch.as_tensor(row, dtype=torch.long)
        mask_BT[i, where] = 1
    return tokens_BT.to(device), mask_BT.to(device)


@contextmanager
def own_defaults_set_aside(model: Any) -> Iterator[None]:
    """Replace the model's generation config by an empty one: ``generate`` merges its values."""
    kept = model.generation_config
    model.generation_config = transformers.GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = kept


def _limits(model: Any, template: AnswerTemplate, generation: GenerationConfig) -> Any:
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
    new_BT: Tensor, log_probs_BT: Tensor, template: AnswerTemplate, latency: float
) -> list[Generated]:
    stops = set(template.stop_ids)
    answers = []
    for row, log_probs in zip(new_BT.tolist(), log_probs_BT.tolist(), strict=True):
        end = next((i for i, token in enumerate(row) if token in stops), None)
        length = len(row) if end is None else end + 1
        confidence = sum(log_probs[:length]) / length
        text = decode_answer(template, row[:length])
        answers.append(Generated(tuple(row[:length]), text, end is not None, latency, confidence))
    return answers
