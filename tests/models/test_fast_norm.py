"""RMS norms of every architecture, lean and as transformers writes them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from sizewise.models.adapter.fast_norm import RmsNorm, lean_norms

NORMED = [
    "llama", "qwen2", "qwen3", "mistral", "phi3", "smollm3", "gemma2", "gemma3", "gpt_oss", "lfm2",
]  # fmt: skip


def norms_of(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if type(m).__name__.endswith("RMSNorm")]


@pytest.mark.parametrize("model_type", NORMED)
def test_outputs_and_gradients_are_those_of_transformers(
    model_type: str, base_of_type: Any
) -> None:
    base = base_of_type(model_type).requires_grad_(False)
    norms = norms_of(base)
    for norm in norms:
        nn.init.normal_(norm.weight)
    found = []
    for lean in (True, False):
        assert lean_norms(base, lean) == (len(norms) if lean else 0)
        torch.manual_seed(1)
        for norm in norms[:4]:
            x = torch.randn(3, 5, norm.weight.numel(), requires_grad=True)
            out = norm(x)
            assert ("RmsNorm" in type(out.grad_fn).__name__) == lean
            (gradient,) = torch.autograd.grad(out.square().sum(), x)
            found.append((out.detach(), gradient))
    half = len(found) // 2
    assert half >= 2
    for (out, gradient), (expected, its) in zip(found[:half], found[half:], strict=True):
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gradient, its, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("model_type", NORMED)
def test_in_half_precision_outputs_are_the_same_and_gradients_as_exact(
    model_type: str, dtype: torch.dtype, base_of_type: Any
) -> None:
    """Errors of both are against double precision, over the same rounded numbers."""
    base = base_of_type(model_type).requires_grad_(False).to(dtype)
    for norm in (norms := norms_of(base)[:4]):
        nn.init.normal_(norm.weight)
        x = torch.randn(3, 5, norm.weight.numel(), generator=torch.Generator().manual_seed(1))
        x, upstream = x.to(dtype).requires_grad_(), torch.linspace(-1, 1, x.numel()).view_as(x)
        found = []
        for lean in (True, False):
            lean_norms(base, lean)
            out = norm(x)
            assert ("RmsNorm" in type(out.grad_fn).__name__) == lean
            found.append((out.detach(), *torch.autograd.grad(out, x, upstream.to(dtype))))
        (ours, gradient), (theirs, its) = found
        assert torch.equal(ours, theirs)
        true = x.detach().double().requires_grad_()
        out = copy.deepcopy(norm).double()(true)
        (exact,) = torch.autograd.grad(out, true, upstream.to(dtype).double())
        error, other = ((g.double() - exact).norm() for g in (gradient, its))
        assert error <= 1.05 * other + 1e-3 * exact.norm()
    assert norms


def test_in_half_precision_the_input_alone_is_kept(base_of_type: Any) -> None:
    base = base_of_type("llama").requires_grad_(False).bfloat16()
    norm, kept = norms_of(base)[0], []
    x = torch.randn(2, 8, norm.weight.numel()).bfloat16().requires_grad_()
    for lean in (True, False):
        lean_norms(base, lean)
        sizes: list[int] = []
        kept.append(sizes)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, into=sizes: into.append(t.nbytes) or t, lambda t: t
        ):
            norm(x)
    assert sum(kept[0]) == x.nbytes + norm.weight.nbytes
    assert sum(kept[1]) > 2 * sum(kept[0])


def test_gradients_are_those_of_finite_differences() -> None:
    weight = torch.rand(6, dtype=torch.float64)
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: RmsNorm.apply(x, weight, 1e-3, 1.0), x)


def test_without_gradients_and_in_other_dtypes_it_is_transformers_own(base_of_type: Any) -> None:
    base = base_of_type("llama").requires_grad_(False)
    norm = norms_of(base)[0]
    x = torch.randn(2, 8, norm.weight.numel(), requires_grad=True)
    before = norm(x).detach()
    lean_norms(base, True)
    with torch.no_grad():
        assert torch.equal(norm(x), before)
    norm.weight.requires_grad_(True)
    assert "RmsNorm" not in type(norm(x).grad_fn).__name__
    norm.weight.requires_grad_(False)
    assert "RmsNorm" not in type(norm(x.double()).grad_fn).__name__
    assert "RmsNorm" not in type(norm(x.bfloat16()).grad_fn).__name__, "two dtypes"


class OtherRMSNorm(nn.Module):
    """Not what its name says."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / x.abs().amax(-1, keepdim=True) * self.weight


class InGroupsRMSNorm(OtherRMSNorm):
    """RMS norm of the whole width, or of groups, as the instance says."""

    def __init__(self, width: int, group_size: int | None = None, eps: float = 1e-6) -> None:
        super().__init__(width, eps)
        self.group_size = group_size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.rms_norm(x, x.shape[-1:], self.weight, self.eps)


class ForGpusRMSNorm(OtherRMSNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ValueError("a kernel that the CPU has not got")


def test_other_norms_of_that_name_are_left_alone() -> None:
    others = [OtherRMSNorm(8, eps=1e-6), InGroupsRMSNorm(8, 4), ForGpusRMSNorm(8, eps=1e-6)]
    model = nn.Sequential(*others, nn.RMSNorm(8), nn.RMSNorm((4, 8), eps=1e-6), nn.LayerNorm(8))
    assert lean_norms(model, True) == 0


def test_a_forward_that_somebody_else_put_there_stays(base_of_type: Any) -> None:
    """As accelerate does, to move what goes in to another device."""
    base = base_of_type("llama").requires_grad_(False)
    hooked, *others = norms_of(base)
    theirs = hooked.forward = lambda x: x  # type: ignore[method-assign, assignment]
    for lean in (True, False):
        assert lean_norms(base, lean) == (len(others) if lean else 0)
        assert hooked.forward is theirs
