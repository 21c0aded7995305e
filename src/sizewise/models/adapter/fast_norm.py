"""RMS norms (Zhang & Sennrich 2019) with frozen weights, with a written-out backward pass.

As transformers writes them they are several differentiable steps, each with a tensor of the input's
size, in half precision with copies in fp32 too; here they are one.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache, partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from sizewise.models.adapter.wrapping import take_back


class RmsNorm(torch.autograd.Function):
    """``(w + more) · x / sqrt(mean(x²) + eps)`` over the last dimension, with w frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, eps: float, more: float) -> Tensor:
        width = x.shape[-1]
        norms = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = norms.square_().div_(width).add_(eps).rsqrt_()
        normed = x * inverse
        scale_D = weight_D + more if more else weight_D
        ctx.save_for_backward(normed, inverse, scale_D)
        return normed * scale_D

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        normed, inverse, scale_D = ctx.saved_tensors
        grad = gradients[0] * scale_D
        along = (grad * normed).mean(-1, keepdim=True)
        return grad.addcmul_(normed, along, value=-1).mul_(inverse), None, None, None


class HalfRmsNorm(torch.autograd.Function):
    """The same in half precision: computed as its module does, of which the input alone is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: nn.Module, eps: float, more: float) -> Tensor:
        ctx.save_for_backward(x, norm.weight)
        ctx.eps, ctx.more = eps, more
        return cast(Tensor, type(norm).forward(norm, x))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_D = ctx.saved_tensors
        normed = x.float()
        inverse = normed.square().mean(-1, keepdim=True).add_(ctx.eps).rsqrt_()
        normed = normed * inverse
        grad = gradients[0].float() * (weight_D.float() + ctx.more)
        along = (grad * normed).mean(-1, keepdim=True)
        grad = grad.addcmul_(normed, along, value=-1).mul_(inverse)
        return grad.to(x.dtype), None, None, None


def lean_norms(model: nn.Module, lean: bool) -> int:
    """Give every RMS norm the lean passes, or transformers' own back; return how many have them.

    Without gradients, where a weight is trained, or where input and weight are of two dtypes, a
    norm is computed as transformers does in any case.
    """
    count = 0
    for module in model.modules():
        take_back(module, _forward)
        more = _added(cast(Hashable, type(module))) if _is_simple(module) else None
        if lean and more is not None:
            module.forward = partial(_forward, module, more)
            count += 1
    return count


SIMPLE = {"training", "eps", "variance_epsilon", "with_scale", "hidden_size", "dim"}


def _is_simple(module: Any) -> bool:
    """Whether a module may be an RMS norm of the last dimension with a weight, and no more.

    One with a ``forward`` of its own already (as accelerate gives modules) is left as it is.
    """
    own = {name for name in vars(module) if not name.startswith("_")}
    weight = getattr(module, "weight", None)
    return (
        type(module).__name__.endswith("RMSNorm")
        and own <= SIMPLE
        and isinstance(weight, nn.Parameter)
        and weight.dim() == 1
        and isinstance(_eps(module), float)
    )


def _forward(self: Any, more: float, x: Tensor) -> Tensor:
    weight = self.weight
    plain = x.dtype == weight.dtype and x.is_floating_point() and not weight.requires_grad
    if not plain or x.dtype == torch.float64 or not torch.is_grad_enabled():
        return type(self).forward(self, x)
    if x.dtype == torch.float32:
        return RmsNorm.apply(x, weight, _eps(self), more)
    return HalfRmsNorm.apply(x, self, _eps(self), more)


def _eps(norm: Any) -> Any:
    return getattr(norm, "variance_epsilon", getattr(norm, "eps", None))


@cache
def _added(kind: Any) -> float | None:
    """What a class of norms adds to its weight (Gemma's 1), found on a probe.

    None where it computes something else.
    """
    with torch.device("cpu"), torch.no_grad():
        x = torch.linspace(-2, 3, 24).view(3, 8)
        try:
            probe: Any = kind(8, eps=0.01).float()
            probe.weight.copy_(torch.linspace(0.5, 2, 8))
            expected, eps = probe(x), _eps(probe)
        except Exception:  # of whatever kind: somebody's own class, which is left alone
            return None
        normed = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
        for more in (0.0, 1.0):
            if torch.allclose(expected, normed * (probe.weight + more), rtol=1e-5, atol=1e-6):
                return more
    return None
