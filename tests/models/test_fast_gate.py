"""Gated MLPs of every architecture, lean and as transformers writes them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers.activations import ACT2FN

from sizewise.models.adapter.attach import attach_adapter, enable_checkpointing
from sizewise.models.adapter.fast_gate import Gated, kind_of, lean_gates
from sizewise.models.adapter.packed import view_of
from sizewise.models.head import answer_logits

GATED = ["llama", "qwen2", "qwen3", "mistral", "smollm3", "gemma", "gemma2", "gemma3_text"]


def gates_of(model: nn.Module) -> list[Any]:
    return [m for m in model.modules() if type(m).__name__.endswith("MLP")]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("model_type", GATED)
def test_outputs_and_gradients_are_those_of_transformers(
    model_type: str, dtype: torch.dtype, base_of_type: Any
) -> None:
    base = base_of_type(model_type).requires_grad_(False).to(dtype)
    gates = gates_of(base)
    found = []
    for lean in (True, False):
        assert lean_gates(base, lean) == (len(gates) if lean else 0)
        x = torch.linspace(-3, 3, 5 * base.config.hidden_size).view(1, 5, -1).to(dtype)
        x.requires_grad_()
        out = gates[0](x)
        (gradient,) = torch.autograd.grad(out.float().square().sum(), x)
        found.append((out.detach(), gradient))
    assert gates
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)


def test_gradients_are_those_of_finite_differences() -> None:
    for act in (nn.SiLU(), nn.GELU(), nn.GELU(approximate="tanh")):
        kind = kind_of(act)
        gate, up = (torch.randn(3, 5, dtype=torch.float64, requires_grad=True) for _ in "ab")
        assert torch.autograd.gradcheck(
            lambda g, u, act=act, kind=kind: Gated.apply(g, u, act, kind), (gate, up)
        )


def test_what_is_kept_is_less_by_one(base_of_type: Any) -> None:
    base, kept = base_of_type("llama").requires_grad_(False), []
    mlp = gates_of(base)[0]
    for lean in (True, False):
        lean_gates(base, lean)
        x = torch.randn(2, 8, base.config.hidden_size, requires_grad=True)
        sizes: dict[int, int] = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, into=sizes: into.__setitem__(t.data_ptr(), t.numel()) or t, lambda t: t
        ):
            mlp(x)
        kept.append(sum(size == 16 * base.config.intermediate_size for size in sizes.values()))
    assert kept == [2, 3]


def test_without_gradients_it_is_transformers_own(base_of_type: Any) -> None:
    base = base_of_type("llama").requires_grad_(False)
    mlp, x = gates_of(base)[0], torch.randn(2, 8, base.config.hidden_size)
    with torch.no_grad():
        before = mlp(x)
        lean_gates(base, True)
        assert torch.equal(mlp(x), before)


def test_a_view_has_gates_of_its_own(base_of_type: Any) -> None:
    base = base_of_type("llama").requires_grad_(False)
    lean_gates(base, True)
    own, theirs = gates_of(view_of(base))[0], gates_of(base)[0]
    assert own.forward.args[0] is own is not theirs


def test_gate_and_up_of_two_dtypes_are_multiplied_as_transformers_does() -> None:
    mlp: Any = Plain(nn.SiLU())
    mlp.gate_proj.bfloat16()
    mlp.gate_proj.register_forward_pre_hook(lambda m, args: args[0].bfloat16())
    x, found = torch.randn(2, 4), []
    for lean in (True, False):
        lean_gates(mlp, lean)
        found.append(mlp(x))
    assert torch.equal(*found)


@pytest.mark.parametrize("selective", [False, True])
def test_recomputed_gates_give_the_same_gradients(
    selective: bool, base_of_type: Any, tiny: Any, batch: Any, plain_lora: Any
) -> None:
    found = []
    for recomputed in (False, True):
        model = attach_adapter(base_of_type("llama"), plain_lora, tiny("llama"), seed=1).train()
        if recomputed:
            enable_checkpointing(model, selective)
        answer_logits(model, batch).logsumexp(-1).sum().backward()
        found.append([p.grad for p in model.parameters() if p.grad is not None])
        gates = [m for m in gates_of(model) if "forward" in vars(m)]
        assert len(gates) == model.config.num_hidden_layers
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(again, plain)


class Sparse(nn.Module):
    """The parts of a gated MLP, used in another way."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = (nn.Linear(4, 4) for _ in range(3))
        self.act_fn = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.down_proj(self.act_fn(self.gate_proj(x)).relu() * self.up_proj(x))
        return out


class Plain(Sparse):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))
        return out


def test_other_mlps_and_activations_are_left_alone() -> None:
    acts = [nn.PReLU(), nn.ReLU(), nn.Identity(), nn.SiLU(inplace=True), ACT2FN["gelu_10"]]
    others = [Sparse(nn.SiLU()), *map(Plain, acts)]
    hooked = Plain(nn.SiLU())
    theirs = hooked.forward = lambda x: x  # type: ignore[method-assign, assignment]
    model = nn.Sequential(*others, hooked, nn.Linear(4, 4))
    assert lean_gates(model, True) == 0
    assert hooked.forward is theirs
    assert lean_gates(Plain(nn.SiLU()), True) == 1
