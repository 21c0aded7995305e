"""Gated MLPs (Shazeer 2020, arXiv:2002.05202) that keep less for their backward pass.

Of ``down(act(gate(x)) * up(x))`` autograd keeps the activated gate too, which has the width of the
MLP and follows from the gate at little cost: here it is computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cache, partial
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from sizewise.models.adapter.wrapping import take_back

Gradient = Callable[[Tensor, Tensor], Tensor]
"""From the gradient by an activation and its input: the gradient by the input."""
PARTS = {"gate_proj", "up_proj", "down_proj", "act_fn"}
KNOWN: dict[str, tuple[Callable[[Tensor], Tensor], Gradient]] = {
    "silu": (functional.silu, torch.ops.aten.silu_backward),
    "gelu_tanh": (
        partial(functional.gelu, approximate="tanh"),
        partial(torch.ops.aten.gelu_backward, approximate="tanh"),
    ),
    "gelu": (functional.gelu, torch.ops.aten.gelu_backward),
}

FAR = (-1e4, -100.0, -20.0, 20.0, 100.0, 1e4)  # some activations are clipped


class Gated(torch.autograd.Function):
    """``act(gate) * up``, element by element, of which gate and up alone are kept."""

    @staticmethod
    def forward(
        ctx: Any, gate: Tensor, up: Tensor, act: Callable[[Tensor], Tensor], kind: str
    ) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.act, ctx.gradient = act, KNOWN[kind][1]
        return act(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gate, up = ctx.saved_tensors
        grad_gate = ctx.gradient(gradients[0] * up, gate)
        return grad_gate, ctx.act(gate).mul_(gradients[0]), None, None


def lean_gates(model: nn.Module, lean: bool) -> int:
    """Give every gated MLP the lean pass, or transformers' own back; return how many have it.

    Without gradients an MLP is computed as transformers does in any case.
    """
    count = 0
    for module in model.modules():
        take_back(module, _forward)
        if not lean or {name for name, _ in module.named_children()} != PARTS:
            continue
        part: Any = module
        kind = kind_of(part.act_fn)
        if not kind or not _is_gated(cast(Hashable, type(module))):
            continue
        if "forward" not in vars(module):  # of its own, as accelerate gives modules
            module.forward = partial(_forward, module, kind)
            count += 1
    return count


def _forward(self: Any, kind: str, x: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return cast(Tensor, type(self).forward(self, x))
    gate, up = self.gate_proj(x), self.up_proj(x)
    if gate.dtype != up.dtype:
        return cast(Tensor, self.down_proj(self.act_fn(gate) * up))
    return cast(Tensor, self.down_proj(Gated.apply(gate, up, self.act_fn, kind)))


def kind_of(act: nn.Module) -> str:
    """Return which of ``KNOWN`` an activation is, told by what it does to a probe; else nothing."""
    if next(act.parameters(), None) is not None:
        return ""
    with torch.device("cpu"), torch.no_grad():
        probe = torch.cat([torch.linspace(-6, 6, 49), torch.tensor(FAR)])
        given = probe.clone()
        try:
            found = act(given)
        except Exception:  # of whatever kind: somebody's own class, which is left alone
            return ""
        if not torch.equal(given, probe) or found.data_ptr() == given.data_ptr():
            return ""  # it works in place: what went in would not be there any more
        alike = (
            kind for kind, (known, _) in KNOWN.items()
            if torch.allclose(found, known(probe), rtol=1e-6, atol=1e-7)
        )  # fmt: skip
        return next(alike, "")


@cache
def _is_gated(kind: Any) -> bool:
    """Whether a class computes ``down(act(gate(x)) * up(x))`` of its parts, found on a probe."""
    with torch.device("cpu"), torch.no_grad():
        x = torch.linspace(-2, 3, 24).view(3, 8)
        parts = SimpleNamespace(
            gate_proj=lambda x: x.flip(-1) + 1, up_proj=lambda x: 2 * x, down_proj=torch.cos,
            act_fn=torch.sin,
        )  # fmt: skip
        try:
            found = kind.forward(parts, x)
        except Exception:  # it asks for more
            return False
        expected = torch.cos(torch.sin(x.flip(-1) + 1) * 2 * x)
        return isinstance(found, Tensor) and torch.allclose(found, expected)
