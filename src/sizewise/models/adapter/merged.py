"""The adapter inside the base's weights for a while, as it would be served."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sizewise.devices import device_of, is_out_of_memory
from sizewise.models.adapter.wrapping import is_adapted
from sizewise.signals import signals_held

MOST_BYTES = 1 << 30
"""Weights of the base that are kept beside the merged ones; of a larger base LoRA costs little on a
CPU. On a GPU, where small products cost their start, memory decides."""


def mergeable(model: nn.Module, exact: bool = True) -> list[Any]:
    """Return the adapted layers if all of them can be merged, else [].

    That is so for LoRA and DoRA over plain linears that share their weights with nothing; in fp32
    merging changes results by rounding alone. ``exact``: only there.
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
        and (layer.base_layer.bias is not None or not any(layer.lora_bias.values()))
        and not any(p.is_meta for p in layer.parameters())
        and (not exact or all(p.dtype == torch.float32 for p in layer.parameters()))
        for layer in layers
    )
    roomy = not exact and device_of(model).type == "cuda"
    return layers if plain and (roomy or _bytes(layers) <= MOST_BYTES) else []


def _bytes(layers: list[Any]) -> int:
    return sum(layer.base_layer.weight.nbytes for layer in layers)


@contextmanager
def merged(model: nn.Module, exact: bool = True) -> Iterator[int]:
    """Merge the adapter inside the block where that is exact enough (``mergeable``).

    ``exact=False``: also where the merged weights are rounded to half precision, as they would be
    served; that is good enough to measure speed.

    The base's own weights are kept and put back, bit for bit, which subtracting would not do, and
    whatever comes: other jobs of this process may train on them.
    Yields the bytes that are kept: 0 where nothing was merged. Inside, the adapter cannot be
    switched off.
    """
    layers = mergeable(model, exact)
    kept = [{name: p.data for name, p in layer.base_layer.named_parameters()} for layer in layers]
    try:
        yield _bytes(layers) if _merge(layers, kept) else 0
    finally:
        _put_back(layers, kept)


def _merge(layers: list[Any], kept: list[dict[str, Tensor]]) -> bool:
    """Merge all layers; with too little memory for that, or where weights overflow, none."""
    try:
        with signals_held():
            for layer in layers:
                layer.merge(safe_merge=True)
    except (RuntimeError, MemoryError, ValueError) as error:
        if not isinstance(error, ValueError) and not is_out_of_memory(error):
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
