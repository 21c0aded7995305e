"""The passes of ``fast_lora`` with an adapter for each of K blocks of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sizewise.models.adapter.fast_lora import base_product, four_bit_state, rank_first, whole


def _blocks(x: Tensor, dropped: Tensor | None, count: int) -> Tensor:
    """Return what the adapters see, (K, N, I): a block of rows for each."""
    return (x if dropped is None else dropped).reshape(count, -1, x.shape[-1])


def _packed_lora_linear(
    x: Tensor,
    dropped: Tensor | None,
    weight: Tensor,
    bias_O: Tensor | None,
    a_KRI: Tensor,
    b_KOR: Tensor,
    scale_K: Tensor,
) -> tuple[Tensor, Tensor]:
    out = base_product(x, weight, bias_O)
    inputs_KNI = _blocks(x, dropped, len(a_KRI))
    hidden_KNR = torch.bmm(inputs_KNI, a_KRI.transpose(1, 2)).mul_(scale_K)
    out.view(len(a_KRI), -1, out.shape[-1]).baddbmm_(hidden_KNR, b_KOR.transpose(1, 2))
    return out, hidden_KNR


def _looped_lora_linear(
    x: Tensor,
    dropped: Tensor | None,
    weight: Tensor,
    bias_O: Tensor | None,
    scales: Sequence[float],
    weights: Sequence[Tensor],
) -> tuple[Tensor, list[Tensor]]:
    out = base_product(x, weight, bias_O)
    inputs_KNI = _blocks(x, dropped, len(scales))
    hidden = [rank_first(a, i_NI) for i_NI, a in zip(inputs_KNI, weights[::2], strict=True)]
    out_KNO = out.view(len(scales), -1, out.shape[-1])
    for out_NO, h_RN, b_OR, scale in zip(out_KNO, hidden, weights[1::2], scales, strict=True):
        out_NO.addmm_(h_RN.t(), b_OR.t(), alpha=scale)
    return out, hidden


# One operation each to whatever watches operations, as ``fast_lora.LORA_LINEAR`` is.
PACKED_LINEARS = ("packed_lora_linear", "looped_lora_linear")
_LIBRARY = torch.library.Library("sizewise", "FRAGMENT")
_INPUTS = "Tensor x, Tensor? dropped, Tensor weight, Tensor? bias"
_LIBRARY.define(
    f"{PACKED_LINEARS[0]}({_INPUTS}, Tensor a, Tensor b, Tensor scale) -> (Tensor, Tensor)"
)
_LIBRARY.define(
    f"{PACKED_LINEARS[1]}({_INPUTS}, float[] scales, Tensor[] weights) -> (Tensor, Tensor[])"
)
_LIBRARY.impl(PACKED_LINEARS[0], _packed_lora_linear, "CompositeExplicitAutograd")
_LIBRARY.impl(PACKED_LINEARS[1], _looped_lora_linear, "CompositeExplicitAutograd")


class PackedLoraLinear(torch.autograd.Function):
    """``fast_lora.LoraLinear`` with an A and a B for each of K blocks of rows: batched products."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dropped: Tensor | None,
        weight: Tensor,
        bias_O: Tensor | None,
        a_KRI: Tensor,
        b_KOR: Tensor,
        scale_K: Tensor,
    ) -> Tensor:
        """Compute the layer; ``dropped`` None: the adapters see x itself."""
        out, hidden_KNR = torch.ops.sizewise.packed_lora_linear(
            x, dropped, weight, bias_O, a_KRI, b_KOR, scale_K
        )
        inputs_KNI = _blocks(x, dropped, len(a_KRI))
        ctx.save_for_backward(inputs_KNI, hidden_KNR, weight, a_KRI, b_KOR, scale_K)
        ctx.shared, ctx.state = dropped is None, four_bit_state(weight)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, x', A and B; those of A and B are the sums over a member's own rows."""
        inputs_KNI, hidden_KNR, weight, a_KRI, b_KOR, scale_K = ctx.saved_tensors
        grad_KNO = gradients[0].reshape(len(a_KRI), -1, gradients[0].shape[-1])
        grad_hidden_KNR = torch.bmm(grad_KNO, b_KOR).mul_(scale_K)
        grad_b = torch.bmm(hidden_KNR.transpose(1, 2), grad_KNO).transpose(1, 2)
        grad_a = torch.bmm(grad_hidden_KNR.transpose(1, 2), inputs_KNI)
        grad_x, grad_dropped = _input_gradients(
            ctx,
            inputs_KNI,
            gradients[0],
            weight,
            lambda into: into.baddbmm_(grad_hidden_KNR, a_KRI),
        )
        return grad_x, grad_dropped, None, None, grad_a, grad_b, None


class LoopedLoraLinear(torch.autograd.Function):
    """The same, one adapter after the other: without filled-up ranks, and faster on a CPU."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dropped: Tensor | None,
        weight: Tensor,
        bias_O: Tensor | None,
        scales: Sequence[float],
        *weights: Tensor,
    ) -> Tensor:
        """Compute the layer; ``weights``: A and B of every member (of rank 0 for none)."""
        out, hidden = torch.ops.sizewise.looped_lora_linear(
            x, dropped, weight, bias_O, scales, weights
        )
        inputs_KNI = _blocks(x, dropped, len(scales))
        ctx.save_for_backward(inputs_KNI, weight, *hidden, *weights)
        ctx.shared, ctx.scales, ctx.state = dropped is None, scales, four_bit_state(weight)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """As ``PackedLoraLinear.backward``."""
        scales = ctx.scales
        inputs_KNI, weight, *rest = ctx.saved_tensors
        hidden, weights = rest[: len(scales)], rest[len(scales) :]
        grad_KNO = gradients[0].reshape(len(scales), -1, gradients[0].shape[-1])
        grads: list[Tensor] = []
        grad_hidden = []
        for k, scale in enumerate(scales):
            grad_hidden.append(rank_first(weights[2 * k + 1].t(), grad_KNO[k]).mul_(scale))
            grads.append(torch.mm(grad_hidden[k], inputs_KNI[k]))
            grads.append(torch.mm(hidden[k], grad_KNO[k]).mul_(scale).t())

        def add(into_KNI: Tensor) -> None:
            for k, into_NI in enumerate(into_KNI):
                into_NI.addmm_(grad_hidden[k].t(), weights[2 * k])

        grad_x, grad_dropped = _input_gradients(ctx, inputs_KNI, gradients[0], weight, add)
        return grad_x, grad_dropped, None, None, None, *grads


def _input_gradients(
    ctx: Any,
    inputs_KNI: Tensor,
    grad_out: Tensor,
    weight: Tensor,
    add: Callable[[Tensor], object],
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of x and x'; ``add`` adds the adapters' part to a (K, N, I)."""
    shape = (*grad_out.shape[:-1], inputs_KNI.shape[-1])
    grad_x = grad_dropped = None
    if ctx.needs_input_grad[0]:
        grad_NO = grad_out.reshape(-1, grad_out.shape[-1])
        grad_x = torch.mm(grad_NO, whole(weight, ctx.state, grad_NO))
    if ctx.shared and grad_x is not None:
        add(grad_x.view_as(inputs_KNI))
    elif not ctx.shared and ctx.needs_input_grad[1]:
        grad_dropped = torch.zeros_like(inputs_KNI)
        add(grad_dropped)
        grad_dropped = grad_dropped.view(shape)
    return None if grad_x is None else grad_x.view(shape), grad_dropped
