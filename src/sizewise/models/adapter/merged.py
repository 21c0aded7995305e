"""The adapter inside the base's weights for a while, as it would be served."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sizewise.devices import is_out_of_memory
from sizewise.models.adapter.wrapping import is_adapted
from sizewise.signals import signals_held

MOST_BYTES = 1 << 30
"""Weights of the base that are kept beside the merged ones; of a larger base LoRA costs little."""


def mergeable(model: nn.Module) -> list[Any]:
    """Return the adapted layers if merging all of them changes results by rounding alone, else [].

    That is so for LoRA and DoRA over plain fp32 linears that share their weights with nothing.
    """
    if not is_adapted(model):
        return []
    from peft.tuners.lora.layer import Linear
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers: list[Any] = [m for m in model.modules() if isinstance(m, BaseTunerLayer)]
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    plain = all(
        type(layer) is Linear
        and type(layer.base_layer) is nn.Linear
        and uses[id(layer.base_layer.weight)] == 1
        and not (layer.merged or layer.disable_adapters)
        and all(p.dtype == torch.float32 and not p.is_meta for p in layer.parameters())
        for layer in layers
    )
    return layers if plain and _bytes(layers) <= MOST_BYTES else []


def _bytes(layers: list[Any]) -> int:
    return sum(layer.base_layer.weight.numel() * 4 for layer in layers)


@contextmanager
def merged(model: nn.Module) -> Iterator[int]:
    """Merge the adapter inside the block where that is exact enough (``mergeable``).

    The base's own weights are kept and put back, bit for bit, which subtracting would not do, and
    whatever comes: other jobs of this process may train on them.
    Yields the bytes that are kept: 0 where nothing was merged. Inside, the adapter cannot be
    switched off.
    """
    layers = mergeable(model)
    kept = [{name: p.data for name, p in layer.base_layer.named_parameters()} for layer in layers]
    try:
        yield _bytes(layers) if _merge(layers, kept) else 0
    finally:
        _put_back(layers, kept)


def _merge(layers: list[Any], kept: list[dict[str, Tensor]]) -> bool:
    """Merge all layers; with too little memory for that, none."""
    try:
        with signals_held():
            for layer in layers:
                layer.merge(safe_merge=True)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        _put_back(layers, kept)
        return False
    return True


def _put_back(layers: list[Any], kept: list[dict[str, Tensor]]) -> None:
    with signals_held():
        for layer, weights in zip(layers, kept, strict=True):
            for name, parameter in layer.base_layer.named_parameters():
                parameter.data = weights[name]
        for layer in layers:  # ``unmerge`` would subtract
            layer.merged_adapters.clear()
