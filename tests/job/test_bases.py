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
