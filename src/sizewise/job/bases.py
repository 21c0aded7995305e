"""The base model of this process, kept between jobs that share it."""

from __future__ import annotations

import gc
import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from sizewise.config import ModelConfig, QuantizationConfig, RunConfig
from sizewise.models.adapter.full import is_full
from sizewise.models.adapter.wrapping import is_adapted
from sizewise.models.base import load_base
from sizewise.models.dtypes import weights_dtype
from sizewise.runtime import free_memory

if TYPE_CHECKING:
    import torch

_kept: dict[str, Any] = {}


def storage_of(cfg: RunConfig) -> tuple[ModelConfig, QuantizationConfig]:
    """Return how the base of a job is stored, from the first score to the last.

    ``trainer.precision=bf16-true`` trains on bf16 weights, so the base is loaded as such: cast
    later, the base and its tuned self would be scored in different precisions.
    """
    dtype, quantization = weights_dtype(cfg.trainer), cfg.quantization
    if dtype is None:
        return cfg.model, quantization
    if quantization.method != "none" and quantization.compute_dtype == "auto":
        quantization = replace(quantization, compute_dtype=dtype)
    return replace(cfg.model, dtype=dtype), quantization


def take_base(
    model: ModelConfig, quantization: QuantizationConfig, device: torch.device, reuse: bool = True
) -> Any:
    """Return the frozen base: the one kept from the last job if it is the same, else a fresh one.

    The caller owns it until ``give_back``; a job that fails simply does not give it back.
    """
    key = _key(model, quantization, device)
    found = _kept.pop(key, None) if reuse else None
    if found is not None:
        return found
    _kept.clear()
    gc.unfreeze()  # workers freeze what outlives a job, the base among it
    free_memory()
    return load_base(model, quantization, device)


def give_back(
    model: Any, config: ModelConfig, quantization: QuantizationConfig, device: torch.device
) -> None:
    """Keep the base of ``model`` for the next job, without its adapter.

    A base whose own weights were trained, or that recomputes activations, is let go.
    """
    base = model.unload() if is_adapted(model) else model
    if any(p.requires_grad for p in base.parameters()) or is_full(base) or _recomputes(base):
        return
    _kept[_key(config, quantization, device)] = base.eval()


def _recomputes(base: Any) -> bool:
    return bool(getattr(base, "is_gradient_checkpointing", False))


def _key(model: ModelConfig, quantization: QuantizationConfig, device: torch.device) -> str:
    return json.dumps([asdict(model), asdict(quantization), str(device)], default=str)
