"""How large a model is: parameters and bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from sizewise.models.adapter import full
from sizewise.models.adapter.wrapping import base_of
from sizewise.models.base import VISION_MODULES

ADAPTER_PARTS = ("lora_", ".modules_to_save.", ".trainable_tokens_")


@dataclass(frozen=True)
class ModelSizes:
    """Sizes of a base with or without its adapter.

    Attributes:
        total: parameters of base and adapter; quantised weights count as many as were published.
        trainable: parameters that training changes, or has changed where they are loaded to be
            used only.
        memory_bytes: bytes of all weights, quantisation constants and buffers in memory.
        adapter_bytes: bytes of the trained weights as they are stored (the adapter's, or those of
            a fully trained model).
        vision: those parameters of the base that belong to a vision part and are never used.
    """

    total: int
    trainable: int
    base: int
    memory_bytes: int
    adapter_bytes: int
    vision: int = 0


def model_sizes(model: nn.Module) -> ModelSizes:
    """Count ``model`` (a transformers model, with or without a PEFT adapter)."""
    named = list(base_of(model).named_parameters())
    adapter = [p for name, p in named if is_adapter_weight(name)]
    base = sum(parameter_count(p) for name, p in named if not is_adapter_weight(name))
    vision = sum(parameter_count(p) for name, p in named if any(v in name for v in VISION_MODULES))
    stored = list(full.trained_weights(model).values()) if full.is_full(model) else adapter
    return ModelSizes(
        total=base + sum(p.numel() for p in adapter),
        trainable=sum(p.numel() for _, p in named if p.requires_grad)
        or sum(p.numel() for p in stored),
        base=base,
        memory_bytes=memory_bytes(model),
        adapter_bytes=sum(p.numel() * p.element_size() for p in stored),
        vision=vision,
    )


def is_adapter_weight(name: str) -> bool:
    """Whether a parameter's name is one that PEFT gives to what an adapter trains and stores."""
    return any(part in name for part in ADAPTER_PARTS)


def parameter_count(parameter: nn.Parameter) -> int:
    """Number of weights, counting a packed 4-bit tensor by the shape it had before packing."""
    state = getattr(parameter, "quant_state", None)
    shape = getattr(state, "shape", None)
    return math.prod(shape) if shape is not None else parameter.numel()


def memory_bytes(model: nn.Module) -> int:
    """Bytes of every parameter, buffer and quantisation constant, shared ones once."""
    seen: dict[int, int] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        for part in (tensor, *_constants(tensor)):
            seen[id(part)] = part.numel() * part.element_size()
    return sum(seen.values())


def _constants(parameter: nn.Parameter) -> list[nn.Parameter]:
    """Tensors that bitsandbytes keeps beside a packed weight."""
    state = getattr(parameter, "quant_state", None)
    nested = getattr(state, "state2", None)
    found = [
        getattr(holder, name, None)
        for holder in (state, nested)
        for name in ("absmax", "code", "offset")
    ]
    found.append(getattr(parameter, "SCB", None))
    return [tensor for tensor in found if hasattr(tensor, "element_size")]
