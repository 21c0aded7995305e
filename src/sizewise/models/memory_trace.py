"""Bytes that a computation would hold, counted on the meta device without any memory."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

STAND_IN = "sizewise_fused"


class LiveBytes(TorchDispatchMode):
    """Count the storages that operations make while this mode is on, and the most alive at once.

    Tensors made before (weights) are not counted. ``is_logits`` marks the tensors whose share of
    the peak is reported apart.

    Attributes:
        live: bytes alive now.
        peak: the most bytes alive at once.
        peak_logits: bytes of logits among them.
    """

    def __init__(self, is_logits: Callable[[Tensor], bool] = lambda tensor: False) -> None:
        super().__init__()
        self.is_logits = is_logits
        self.known: set[int] = set()
        self.live = self.peak = self.logits = self.peak_logits = 0

    def ignore(self, tensors: Iterator[Tensor]) -> None:
        """Leave out the storages of these tensors (weights and inputs)."""
        self.known |= {tensor.untyped_storage()._cdata for tensor in tensors}

    def reset_peak(self) -> None:
        """Forget the peak so far; what is alive stays counted."""
        self.peak, self.peak_logits = self.live, self.logits

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation and count the new storages among its outputs."""
        result = func(*args, **(kwargs or {}))
        for tensor in tree_flatten(result)[0]:
            if isinstance(tensor, Tensor):
                self._count(tensor)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.known:
            return
        self.known.add(key)
        size, logits = storage.nbytes(), self.is_logits(tensor)
        weakref.finalize(storage, self._free, key, size, logits)
        self.live += size
        self.logits += size if logits else 0
        if self.live > self.peak:
            self.peak, self.peak_logits = self.live, self.logits

    def _free(self, key: int, size: int, logits: bool) -> None:
        self.known.discard(key)
        self.live -= size
        self.logits -= size if logits else 0


class _Flash(torch.autograd.Function):
    """What a fused attention kernel keeps: its inputs, its output and one number per row."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        rows = torch.empty(query.shape[:-1], dtype=torch.float32, device=query.device)
        ctx.save_for_backward(query, key, value, out, rows)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


def _fused_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any = None, **options: Any
) -> tuple[Tensor, None]:
    """Stand-in of the same memory as SDPA's fused kernels (the meta device has none)."""
    out: Tensor = _Flash.apply(query, key, value)
    return out.transpose(1, 2).contiguous(), None


@contextmanager
def meta_stand_ins(config: Any) -> Iterator[None]:
    """Within the block, models of ``config`` run on the meta device as SDPA's kernels would.

    Fused attention is replaced by a stand-in of the same memory (eager attention stays as it is),
    and the search for packed sequences, which reads values, is left out.
    """
    from transformers import AttentionInterface, AttentionMaskInterface, masking_utils

    AttentionInterface.register(STAND_IN, _fused_attention)
    AttentionMaskInterface.register(STAND_IN, masking_utils.sdpa_mask)
    parts = {id(part): part for part in (config, config.get_text_config())}.values()
    before = [part._attn_implementation for part in parts]
    search: Any = masking_utils.find_packed_sequence_indices
    masking_utils.find_packed_sequence_indices = lambda position_ids: None
    for part in parts:
        if part._attn_implementation == "sdpa":
            part._attn_implementation = STAND_IN
    try:
        yield
    finally:
        masking_utils.find_packed_sequence_indices = search
        for part, implementation in zip(parts, before, strict=True):
            part._attn_implementation = implementation
