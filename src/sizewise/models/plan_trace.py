"""Activations of a training or decoding step, from running it on the meta device."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sizewise.config.model import LoraConfig, ModelConfig
from sizewise.models.adapter import attach_adapter, base_of, enable_checkpointing
from sizewise.models.figures import meta_model
from sizewise.models.memory_trace import LiveBytes, meta_stand_ins

if TYPE_CHECKING:
    from transformers import PretrainedConfig

FEW, MORE = 3, 5


@dataclass(frozen=True)
class Shape:
    """Rows, tokens of the prompt, and tokens of the answer (or written by generation)."""

    rows: int
    prompt: int
    answer: int


def adapted_meta(
    config: PretrainedConfig, model: ModelConfig, lora: LoraConfig, dtype: torch.dtype
) -> nn.Module:
    """Build base and adapter on the meta device."""
    if model.attn_implementation == "eager":
        config = copy.deepcopy(config)
        config._attn_implementation = "eager"
    base = meta_model(config).to(dtype)
    base.requires_grad_(False)
    adapted = attach_adapter(base, lora, model, seed=0).to("meta")
    return adapted.to(dtype) if lora.method == "full" else adapted


def trace_training(
    config: PretrainedConfig,
    model: ModelConfig,
    lora: LoraConfig,
    dtype: torch.dtype,
    shape: Shape,
    checkpointing: bool,
) -> dict[str, int]:
    """Bytes of gradients, activations and logits at the peak of one forward and backward pass."""

    def step(part: PretrainedConfig) -> dict[str, int]:
        adapted = adapted_meta(part, model, lora, dtype)
        if checkpointing:
            enable_checkpointing(adapted)
        return _training_step(adapted.train(), shape)

    return _by_layers(config, step)


def trace_generation(
    config: PretrainedConfig,
    model: ModelConfig,
    lora: LoraConfig,
    dtype: torch.dtype,
    shape: Shape,
) -> dict[str, int]:
    """Bytes of the key/value cache and of activations at generation's peak."""

    def step(part: PretrainedConfig) -> dict[str, int]:
        return _generation_steps(adapted_meta(part, model, lora, dtype).eval(), shape)

    return _by_layers(config, step)


def _by_layers(
    config: PretrainedConfig, step: Callable[[PretrainedConfig], dict[str, int]]
) -> dict[str, int]:
    """Run ``step`` on a few and on some more layers, and continue the line to all of them."""
    layers = config.get_text_config().num_hidden_layers
    if layers <= MORE:
        return step(config)
    few, more = step(with_layers(config, FEW)), step(with_layers(config, MORE))
    slope = {key: (more[key] - few[key]) / (MORE - FEW) for key in more}
    return {key: max(0, int(more[key] + slope[key] * (layers - MORE))) for key in more}


def with_layers(config: PretrainedConfig, count: int) -> PretrainedConfig:
    """Copy a config with fewer layers."""
    copied = copy.deepcopy(config)
    text = copied.get_text_config()
    text.num_hidden_layers = count
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:count]
    if copied.is_encoder_decoder:
        copied.num_decoder_layers = count
    return copied


def _training_step(adapted: nn.Module, shape: Shape) -> dict[str, int]:
    base: Any = base_of(adapted)
    vocabulary = base.get_output_embeddings().out_features
    mode = LiveBytes(lambda tensor: tensor.dim() > 1 and tensor.shape[-1] == vocabulary)
    mode.ignore(adapted.parameters())
    with meta_stand_ins(base.config), mode:
        logits_BTV = base(**_training_inputs(base, shape), use_cache=False).logits
        logits_NV = logits_BTV.flatten(0, 1).float()
        targets_N = _tokens(shape.rows * shape.answer, 1).flatten()
        nn.functional.cross_entropy(logits_NV, targets_N, reduction="sum").backward()
    gradients = sum(
        p.grad.numel() * p.grad.element_size() for p in adapted.parameters() if p.grad is not None
    )
    activations = max(0, mode.peak - mode.peak_logits - gradients)
    return {"gradients": gradients, "activations": activations, "logits": mode.peak_logits}


def _training_inputs(base: Any, shape: Shape) -> dict[str, Any]:
    if base.config.is_encoder_decoder:
        return {
            "input_ids": _tokens(shape.rows, shape.prompt),
            "decoder_input_ids": _tokens(shape.rows, shape.answer),
        }
    return {
        "input_ids": _tokens(shape.rows, shape.prompt + shape.answer),
        "logits_to_keep": shape.answer,
    }


@torch.no_grad()
def _generation_steps(adapted: nn.Module, shape: Shape) -> dict[str, int]:
    """Peak of reading the prompt, and of writing the last token beside a full cache."""
    base: Any = base_of(adapted)
    mode = LiveBytes()
    mode.ignore(adapted.parameters())
    seq2seq = bool(base.config.is_encoder_decoder)
    with meta_stand_ins(base.config), mode:
        if seq2seq:
            prompt = _tokens(shape.rows, shape.prompt)
            start = {"input_ids": prompt, "decoder_input_ids": _tokens(shape.rows, 1)}
            full = start | {"decoder_input_ids": _tokens(shape.rows, max(1, shape.answer - 1))}
        else:
            start = {"input_ids": _tokens(shape.rows, shape.prompt), "logits_to_keep": 1}
            length = shape.prompt + max(1, shape.answer - 1)
            full = start | {"input_ids": _tokens(shape.rows, length)}
        base(**start, use_cache=True)
        reading = mode.peak
        output = base(**full, use_cache=True)
        past, encoded = output.past_key_values, getattr(output, "encoder_last_hidden_state", None)
        del output, start, full
        mode.reset_peak()
        cache = mode.live
        next_token = _tokens(shape.rows, 1)
        inputs = (
            {"decoder_input_ids": next_token, "encoder_outputs": (encoded,)}
            if seq2seq
            else {"input_ids": next_token}
        )
        base(**inputs, past_key_values=past, use_cache=True)
    peak = max(reading, mode.peak)
    return {"kv_cache": cache, "activations": max(0, peak - cache)}


def _tokens(rows: int, length: int) -> Tensor:
    return torch.zeros(rows, length, dtype=torch.long, device="meta")
