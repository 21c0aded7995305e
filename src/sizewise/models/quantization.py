"""Storage of the frozen base in 4 or 8 bits (bitsandbytes)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from sizewise.config.model import QuantizationConfig
from sizewise.models.dtypes import resolve_dtype

if TYPE_CHECKING:
    from torch import nn
    from transformers import BitsAndBytesConfig, PretrainedConfig

VISION_MODULES = ("vision_tower", "multi_modal_projector")


def bnb_config(
    quantization: QuantizationConfig, device: torch.device, config: PretrainedConfig
) -> BitsAndBytesConfig | None:
    """Build the settings for ``from_pretrained``; None for an unquantised base.

    A vision tower and its projector keep their precision: they are never used here, and
    quantising them only costs time.
    """
    if quantization.method == "none":
        return None
    from transformers import BitsAndBytesConfig

    settings: dict[str, Any] = {"llm_int8_skip_modules": _skipped(config)}
    if quantization.method == "int8":
        settings |= {"load_in_8bit": True, "llm_int8_threshold": quantization.int8_threshold}
    else:
        settings |= {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": quantization.double_quant,
            "bnb_4bit_compute_dtype": compute_dtype(quantization, device),
        }
    return BitsAndBytesConfig(**settings)


def compute_dtype(quantization: QuantizationConfig, device: torch.device) -> torch.dtype:
    """The dtype that quantised layers compute in and that the other weights are stored in."""
    return resolve_dtype(quantization.compute_dtype, device, "quantization.compute_dtype")


def _skipped(config: PretrainedConfig) -> list[str] | None:
    if getattr(config, "vision_config", None) is None:
        return None
    return ["lm_head", *(f".*{name}" for name in VISION_MODULES)]


def quantized_linears(model: nn.Module) -> dict[str, nn.Module]:
    """Return the quantised linear layers of ``model`` by name."""
    import bitsandbytes as bnb

    kinds = (bnb.nn.Linear4bit, bnb.nn.Linear8bitLt)
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


def is_quantized(model: nn.Module) -> bool:
    """Whether any weight of ``model`` is stored in 4 or 8 bits."""
    return any(type(p).__name__ in ("Params4bit", "Int8Params") for p in model.parameters())


def switch_off_cpu_repacking(model: nn.Module) -> int:
    """Stop bitsandbytes from repacking 4-bit weights in inference on AVX512-BF16 CPUs.

    bitsandbytes 0.50.2 repacks each ``Linear4bit`` in the first forward pass in eval mode without
    input gradients and never unpacks it, after which LoRA gradients are silently wrong. Returns
    the number of layers.
    """
    layers = [m for m in quantized_linears(model).values() if type(m).__name__ == "Linear4bit"]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False
    return len(layers)
