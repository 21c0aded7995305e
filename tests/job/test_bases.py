"""The base that a worker keeps between jobs."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch

from sizewise.config import ModelConfig, QuantizationConfig
from sizewise.job import bases
from sizewise.sweep.launch.worker import fresh_process_state

CPU = torch.device("cpu")


class Base(torch.nn.Module):
    """A base that refers to itself, as models do: it goes only where garbage is collected."""

    def __init__(self) -> None:
        super().__init__()
        self.hooks = [self.forward]


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Any:
    found: list[weakref.ref[Base]] = []

    def load(model: ModelConfig, quantization: QuantizationConfig, device: torch.device) -> Base:
        base = Base()
        found.append(weakref.ref(base))
        return base

    monkeypatch.setattr(bases, "load_base", load)
    monkeypatch.setattr(bases, "loaded_bases", {})
    yield found
    gc.unfreeze()


def job(name: str) -> None:
    model, storage = ModelConfig(name=name, path=f"embedded:{name}"), QuantizationConfig()
    with fresh_process_state():
        bases.give_back(bases.take_base(model, storage, CPU), model, storage, CPU)


def test_a_base_is_kept_for_like_jobs_and_let_go_for_another(loaded: Any) -> None:
    job("nano")
    job("nano")
    assert len(loaded) == 1
    assert loaded[0]() is not None
    job("micro")
    assert len(loaded) == 2
    assert loaded[0]() is None, "the memory of the first base is lost"


@pytest.mark.parametrize("storage", ["none", "nf4", "int8"])
def test_nothing_of_a_base_that_is_let_go_stays_in_memory(
    storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of one that a worker has frozen, and of what a quantised layer has beside parameters."""
    monkeypatch.setattr(bases, "loaded_bases", {})
    quantization = QuantizationConfig(method=storage)
    nano, micro = (ModelConfig(name=n, path=f"embedded:{n}") for n in ("nano", "micro"))
    with fresh_process_state():
        base = bases.take_base(nano, quantization, CPU)
        base(torch.ones(1, 4, dtype=torch.long))  # int8 makes its state at the first pass
        large = [weakref.ref(tensor) for tensor in tensors_of(base)]
        assert len(large) > 10
        bases.give_back(base, nano, quantization, CPU)
        del base
    bases.take_base(micro, quantization, CPU)
    gc.unfreeze()
    left = [tensor for each in large if (tensor := each()) is not None]
    assert [tuple(tensor.shape) for tensor in left if tensor.numel()] == []


def tensors_of(base: torch.nn.Module) -> list[torch.Tensor]:
    """Parameters, buffers, and what int8 layers have in a state of their own."""
    states = [vars(module.state) for module in base.modules() if hasattr(module, "state")]
    own = [value for state in states for value in state.values()]
    return [*base.parameters(), *base.buffers(), *(t for t in own if isinstance(t, torch.Tensor))]
