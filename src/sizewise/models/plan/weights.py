"""Bytes of weights and optimiser states by the way they are stored, from shapes alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from sizewise.config.model import QuantizationConfig
from sizewise.config.training import OptimizerConfig
from sizewise.models.architecture import meta_model
from sizewise.models.base import VISION_MODULES, transformer_blocks

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


NF4_BLOCK = 64
SCALE_BLOCK = 256
CODE_BOOK = 16 * 4
SCALE_BOOK = 256 * 4 + 4
BLOCK_8BIT = 1 + 4 / 256


def quantizable(model: PreTrainedModel) -> dict[str, torch.nn.Linear]:
    """Return the linear layers that bitsandbytes would replace, by name."""
    kept = (*VISION_MODULES, *(getattr(model, "_keep_in_fp32_modules", None) or ()))
    head = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and module is not head
        and not any(part in name.split(".") for part in kept)
    }


def weight_bytes(
    config: PretrainedConfig, quantization: QuantizationConfig, dtype: torch.dtype
) -> int:
    """Bytes of all weights of the base, quantisation constants included."""
    model = meta_model(config)
    total = sum(p.numel() for p in model.parameters()) * dtype.itemsize
    total += kept_whole(model, dtype)
    if quantization.method == "none":
        return total
    for layer in quantizable(model).values():
        total -= layer.weight.numel() * dtype.itemsize
        total += packed_bytes(layer.weight, quantization)
    return total


def kept_whole(model: PreTrainedModel, dtype: torch.dtype) -> int:
    """Further bytes of what transformers leaves in fp32 in an fp16 model (T5's output layers)."""
    kept = getattr(model, "_keep_in_fp32_modules", None) or ()
    if dtype is not torch.float16 or not kept:
        return 0
    named = ((name.split("."), p.numel()) for name, p in model.named_parameters())
    return 2 * sum(count for parts, count in named if any(part in parts for part in kept))


def packed_bytes(weight: torch.Tensor, quantization: QuantizationConfig) -> int:
    """Bytes of one weight matrix in 8 or 4 bits.

    int8 has an fp32 scale per row; NF4 one per 64 weights, which double quantisation stores in 8
    bits with an fp32 scale per 256 of them (Dettmers et al. 2023); code books come on top.
    """
    if quantization.method == "int8":
        return weight.numel() + 4 * weight.shape[0]
    blocks = -(-weight.numel() // NF4_BLOCK)
    scales = blocks + 4 * -(-blocks // SCALE_BLOCK) if quantization.double_quant else 4 * blocks
    books = CODE_BOOK + (SCALE_BOOK if quantization.double_quant else 0)
    return weight.numel() // 2 + scales + books


def block_bytes(
    config: PretrainedConfig, quantization: QuantizationConfig, dtype: torch.dtype
) -> tuple[int, int]:
    """Bytes of the largest block of layers, and of all that stands outside of blocks."""
    model = meta_model(config)
    packed: dict[int, int] = {}
    if quantization.method != "none":
        linears = quantizable(model).values()
        packed = {id(m.weight): packed_bytes(m.weight, quantization) for m in linears}

    def stored(parameters: Iterable[torch.Tensor]) -> int:
        return sum(packed.get(id(p), p.numel() * dtype.itemsize) for p in parameters)

    blocks = [list(block.parameters()) for block in transformer_blocks(model)]
    inside = {id(p) for block in blocks for p in block}
    outside = stored(p for p in model.parameters() if id(p) not in inside)
    return max(map(stored, blocks), default=0), outside


def largest_linear_bytes(
    config: PretrainedConfig, quantization: QuantizationConfig, dtype: torch.dtype
) -> int:
    """Bytes of the largest layer in the compute dtype: one is unpacked at a time."""
    if quantization.method == "none":
        return 0
    layers = quantizable(meta_model(config)).values()
    return max((layer.weight.numel() for layer in layers), default=0) * dtype.itemsize


def cast_bytes(config: PretrainedConfig, dtype: torch.dtype, recomputes: bool) -> int:
    """Bytes of the copies of weights in ``dtype`` that autocast makes for both passes.

    ``recomputes``: activations are computed again, block by block, and with them those copies.
    """
    from transformers.pytorch_utils import Conv1D

    model = meta_model(config)

    def linear(part: torch.nn.Module) -> int:
        layers = (m for m in part.modules() if isinstance(m, torch.nn.Linear | Conv1D))
        return sum(layer.weight.numel() for layer in layers) * dtype.itemsize

    blocks = [linear(block) for block in transformer_blocks(model)]
    return linear(model) - (sum(blocks) - max(blocks, default=0) if recomputes else 0)


def optimizer_bytes(optimizer: OptimizerConfig, trainable: int, parameter_size: int) -> int:
    """Bytes of the states: two moments for Adam, one for momentum, in 8 bits where so named.

    Adafactor's row and column sums are too small to count.
    """
    name = optimizer.target.rsplit(".", 1)[-1].lower()
    if "adafactor" in name:
        return 0
    if "sgd" in name:
        moments = 1 if optimizer.kwargs.get("momentum") else 0
    else:
        moments = 1 if "lion" in name else 2
    per_state = BLOCK_8BIT if "8bit" in name else parameter_size
    return int(trainable * moments * per_state)
