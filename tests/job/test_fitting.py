from __future__ import annotations

import pytest
import torch
from torch import nn

from sizewise.config.compose import compose_run
from sizewise.job import fitting


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
