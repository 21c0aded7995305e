"""Lean forward and backward passes for plain LoRA layers, with PEFT's parameters and files.

PEFT computes ``W·x + s·B(A(dropout(x)))`` as separate differentiable steps. Here it is one step
with a written-out backward pass: no tensor of the output's size is made for the scaled update,
and the two gradients with respect to ``x`` are summed inside a matrix product. In mixed precision
over a base of half precision, A and B, which are small, are cast; PEFT casts x, to fp32 and back.
Over a base in NF4 (QLoRA: Dettmers et al. 2023, arXiv:2305.14314) the product is bitsandbytes' own.
What it does not cover (DoRA and other variants, biases that are trained, int8, several adapters,
merged weights, a base that autocast casts) is left to PEFT.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional


def rank_first(weight_RD: Tensor, x_ND: Tensor) -> Tensor:
    """Return ``weight xᵀ`` (R, N).

    On a CPU it is computed as it stands: a BLAS takes a quarter to two thirds of the time for eight
    rows that it takes for eight columns. On other devices it was not measured.
    """
    if x_ND.device.type == "cpu":
        return torch.mm(weight_RD, x_ND.t())
    return torch.mm(x_ND, weight_RD.t()).t()


def base_product(x: Tensor, weight: Tensor, bias_O: Tensor | None) -> Tensor:
    """Return ``linear`` of a frozen weight, whole (O, I) or in 4 bits (packed)."""
    if (state := four_bit_state(weight)) is None:
        return functional.linear(x, weight, bias_O)
    from bitsandbytes import matmul_4bit

    bias_O = None if bias_O is None else bias_O.to(x.dtype)
    return cast(Tensor, matmul_4bit(x, weight, state, bias=bias_O))


def whole(weight: Tensor, state: Any, like: Tensor) -> Tensor:
    """Return a frozen weight (O, I): unpacked, in the dtype of ``like``, where it has a state."""
    if state is None:
        return weight
    from bitsandbytes.functional import dequantize_4bit

    return cast(Tensor, dequantize_4bit(weight, state).to(like.dtype))


def four_bit_state(weight: Tensor) -> Any:
    """Return what bitsandbytes unpacks a weight in 4 bits with; None for a whole one."""
    return getattr(weight, "quant_state", None)


def _lora_linear(
    x: Tensor,
    dropped: Tensor | None,
    weight: Tensor,
    bias_O: Tensor | None,
    a_RI: Tensor,
    b_OR: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    out = base_product(x, weight, bias_O)
    adapter_x = (x if dropped is None else dropped).reshape(-1, x.shape[-1])
    hidden_RN = rank_first(a_RI, adapter_x)
    out.view(-1, out.shape[-1]).addmm_(hidden_RN.t(), b_OR.t(), alpha=scale)
    return out, hidden_RN


# One operation to whatever watches operations (selective checkpointing, the planner): its product
# and the adapter's update, which is added in place, are kept or made again together.
LORA_LINEAR = "lora_linear"
_LIBRARY = torch.library.Library("sizewise", "DEF")
_LIBRARY.define(
    f"{LORA_LINEAR}(Tensor x, Tensor? dropped, Tensor weight, Tensor? bias, Tensor a, Tensor b, "
    "float scale) -> (Tensor, Tensor)"
)
_LIBRARY.impl(LORA_LINEAR, _lora_linear, "CompositeExplicitAutograd")


class LoraLinear(torch.autograd.Function):
    """``linear(x, W, bias) + scale · x' Aᵀ Bᵀ`` with W frozen; x' is x after dropout."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dropped: Tensor | None,
        weight: Tensor,
        bias_O: Tensor | None,
        a_RI: Tensor,
        b_OR: Tensor,
        scale: float,
    ) -> Tensor:
        """Compute the layer; ``dropped`` None: the adapter sees x itself."""
        adapter_x = (x if dropped is None else dropped).reshape(-1, x.shape[-1])
        out, hidden_RN = torch.ops.sizewise.lora_linear(
            x, dropped, weight, bias_O, a_RI, b_OR, scale
        )
        ctx.save_for_backward(adapter_x, hidden_RN, weight, a_RI, b_OR)
        ctx.scale, ctx.shared, ctx.input_shape = scale, dropped is None, x.shape
        ctx.state = four_bit_state(weight)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, x', A and B."""
        adapter_x, hidden_RN, weight, a_RI, b_OR = ctx.saved_tensors
        grad_NO = gradients[0].reshape(-1, gradients[0].shape[-1])
        grad_hidden_RN = rank_first(b_OR.t(), grad_NO).mul_(ctx.scale)
        grad_b = torch.mm(hidden_RN, grad_NO).mul_(ctx.scale).t()
        grad_a = torch.mm(grad_hidden_RN, adapter_x)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.mm(grad_NO, whole(weight, ctx.state, grad_NO))
        grad_dropped = None
        if ctx.shared and grad_x is not None:
            grad_x.addmm_(grad_hidden_RN.t(), a_RI)
        elif not ctx.shared and ctx.needs_input_grad[1]:
            grad_dropped = torch.mm(grad_hidden_RN.t(), a_RI).view(ctx.input_shape)
        if grad_x is not None:
            grad_x = grad_x.view(ctx.input_shape)
        return grad_x, grad_dropped, None, None, grad_a, grad_b, None


MANY = 0.3


@dataclass(frozen=True)
class Rows:
    """Rows that are computed: ``chosen`` [N], their numbers among all ``of`` a batch."""

    chosen: Tensor
    of: int

    def among(self, positions: Tensor, width: int) -> Tensor:
        """Return where positions in a tensor of all rows are in one of the chosen, if they are."""
        place = torch.full((self.of,), -1).index_copy_(
            0, self.chosen, torch.arange(len(self.chosen))
        )
        found = place[positions // width]
        there = found >= 0
        return found[there] * width + positions[there] % width


_some_rows: ContextVar[Rows | None] = ContextVar("some_rows", default=None)


@contextmanager
def drawn_for_all(rows: Rows) -> Iterator[None]:
    """Let dropout of some rows draw what it would draw for all of them."""
    before = _some_rows.set(rows)
    try:
        yield
    finally:
        _some_rows.reset(before)


def draws_positions(layer: Any) -> bool:
    """Whether dropout of a LoRA layer is ``adapter_dropout`` on a CPU."""
    device, computed = layer.base_layer.weight.device, _product_dtype(layer.base_layer)
    return device.type == "cpu" and computed is not None and _is_plain(layer, computed, device)


def adapter_dropout(x: Tensor, p: float) -> Tensor:
    """Dropout that draws, on the CPU, where elements are dropped instead of a number for each.

    Each element is dropped with probability ``p`` whatever happens to the others, as in
    ``functional.dropout``: of a Poisson number of positions, drawn with replacement, the count at
    each one is independent of all others (Kingman 1993, Poisson Processes, section 2.4), and 0 with
    probability 1 - p where n·log(1/(1 - p)) are expected.
    """
    if x.device.type != "cpu":
        return functional.dropout(x, p)
    rows, width = _some_rows.get(), x.shape[-1]
    count = x.numel() if rows is None else rows.of * width
    if p > MANY:  # a mask is smaller than the positions
        kept = torch.rand(count).view(-1, width) >= p
        kept = kept if rows is None else kept[rows.chosen]
        return x * kept.view_as(x) / (1 - p)
    expected = torch.tensor(-count * math.log1p(-p), dtype=torch.float64)
    positions = torch.randint(max(1, count), (int(torch.poisson(expected)),))
    if rows is not None:
        positions = rows.among(positions, width)
    return cast("Tensor", _DropPositions.apply(x, positions, 1 / (1 - p)))


class _DropPositions(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, positions: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(positions)
        ctx.scale = scale
        return _without(x, positions, scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (positions,) = ctx.saved_tensors
        return _without(gradients[0], positions, ctx.scale), None, None


def _without(x: Tensor, positions: Tensor, scale: float) -> Tensor:
    out = (x * scale).contiguous()
    out.view(-1).index_fill_(0, positions, 0.0)
    return out


def _forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Replace the forward of PEFT's LoRA layers where one plain adapter is active, or merged."""
    if self.merged and not (args or kwargs or self.disable_adapters):
        return self.base_layer(x)
    name = self.active_adapters[0] if len(self.active_adapters) == 1 else None
    if args or kwargs or name not in self.lora_A or self.disable_adapters or self.merged:
        return self._peft_forward(x, *args, **kwargs)
    if not is_plain(x, self):
        return self._peft_forward(x)
    base, a_RI, b_OR = self.base_layer, self.lora_A[name].weight, self.lora_B[name].weight
    given, x = x.dtype, as_multiplied(x, base)
    rate = getattr(self.lora_dropout[name], "p", 0.0) if self.training else 0.0
    dropped = adapter_dropout(x, rate) if rate else None
    a_RI, b_OR = a_RI.to(x.dtype), b_OR.to(x.dtype)
    layer = (x, dropped, base.weight, base.bias)
    return as_returned(LoraLinear.apply(*layer, a_RI, b_OR, self.scaling[name]), base, given)


def is_plain(x: Tensor, layer: Any) -> bool:
    """Whether the lean passes serve a layer with one active adapter, given ``x``.

    It was sped up, its adapter is LoRA without a bias, the base is frozen, and its product is made
    in the dtype in which its weight counts.
    """
    return _is_plain(layer, x.dtype, x.device)


def _is_plain(layer: Any, given: torch.dtype, device: torch.device) -> bool:
    name, base = layer.active_adapters[0], layer.base_layer
    a_RI, bias_O = layer.lora_A[name].weight, layer.lora_B[name].bias
    if not hasattr(layer, "_peft_forward") or name in layer.lora_variant or bias_O is not None:
        return False
    if base.weight.requires_grad or (base.bias is not None and base.bias.requires_grad):
        return False
    computed, own = autocast_dtype(device), _product_dtype(base)
    return own == computed if computed is not None else own == given == a_RI.dtype


def as_multiplied(x: Tensor, base: Any) -> Tensor:
    """Return ``x`` in the dtype of the base's product, as autocast makes it.

    On a GPU autocast lets layer norms return fp32.
    """
    return x.to(_product_dtype(base))


def as_returned(out: Tensor, base: Any, given: torch.dtype) -> Tensor:
    """Return a product as the base's layer does: those of bitsandbytes in the dtype they got."""
    return out.to(given) if type(base).__name__ == "Linear4bit" else out


def _product_dtype(base: Any) -> torch.dtype | None:
    """Return what a base layer's product is made in; None: only bitsandbytes' own code knows."""
    if type(base).__name__ != "Linear4bit":
        return cast(torch.dtype, base.weight.dtype)
    if four_bit_state(base.weight) is None and base.quant_state is not None:
        # A weight that was put together from shares; bitsandbytes' own forward does the same.
        from bitsandbytes.nn.modules import fix_4bit_weight_quant_state_from_module

        fix_4bit_weight_quant_state_from_module(base)
    state = four_bit_state(base.weight)
    plain = state is not None and not getattr(state, "packing_format_for_cpu", False)
    return base.compute_dtype if plain else None


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Return what autocast makes products on a device in, where it is on.

    Of the meta device, which has none, that is what it is for the CPU, on which nothing else runs
    while memory is planned.
    """
    kind = "cpu" if device.type == "meta" else device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


def speed_up(model: nn.Module) -> int:
    """Give every LoRA layer that ``has_lean_passes`` these; return how many."""
    layers: list[Any] = [module for module in model.modules() if has_lean_passes(module)]
    for layer in layers:
        layer._peft_forward = layer.forward
        layer.forward = partial(_forward, layer)
    return len(layers)


def has_lean_passes(layer: Any) -> bool:
    """Whether a module is LoRA over a linear layer, whole or in NF4; no variant such as DoRA is."""
    if not type(layer).__module__.startswith("peft.tuners.lora.") or not hasattr(layer, "lora_A"):
        return False
    base = type(layer.base_layer)
    over_linear = type(layer).__name__ in ("Linear", "Linear4bit")
    linear = base is nn.Linear or base.__name__ == "Linear4bit"
    return over_linear and linear and not layer.lora_variant
