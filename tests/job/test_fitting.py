from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.job.test_run_job import run
from torch import nn

from sizewise.config.compose import compose_run
from sizewise.job import fitting, pipeline


@pytest.mark.parametrize(("bf16", "fused"), [(True, True), (False, None)])
def test_no_fused_step_where_auto_means_fp16(
    monkeypatch: pytest.MonkeyPatch, bf16: bool, fused: bool | None
) -> None:
    """Under loss scaling a fused step would unscale gradients that were clipped already."""
    monkeypatch.setattr(fitting, "resolve_device", lambda trainer: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    module = fitting._module(compose_run(["trainer.precision=auto"]), nn.Linear(2, 2))
    optimizer = module.optimizer_factory(module.model.parameters())
    assert optimizer.defaults["fused"] == fused


def test_a_16_bit_base_is_trained_in_fp32_and_scored_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where ``model.dtype=auto`` is bf16."""
    take_base = pipeline.take_base

    def half(*arguments: Any) -> Any:
        return take_base(*arguments).to(torch.bfloat16)

    monkeypatch.setattr(pipeline, "take_base", half)
    outcome = run(tmp_path, "full", "lora=full", "optimizer.lr=1e-5", "model.dtype=auto")
    weights = load_file(str(tmp_path / "full" / "adapter" / "full_model.safetensors"))
    assert {w.dtype for w in weights.values()} == {torch.float32}
    moved = [w for w in weights.values() if not torch.equal(w, w.bfloat16().float())]
    assert len(moved) > len(weights) / 2
    assert outcome.model.dtype == "bfloat16"
