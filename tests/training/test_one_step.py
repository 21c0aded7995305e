"""One optimiser step is that of plain PEFT + transformers, however it is cut into batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tests.training.toys import (
    adapted,
    collate,
    fit_toy,
    make_examples,
    make_module,
    quantised_base,
    tiny_base,
    toy_data,
)
from torch import Tensor, nn

from sizewise.models.adapter.fast_lora import speed_up


class KeepGradients(pl.Callback):
    """Copies the gradients of the first optimiser step, before clipping."""

    def __init__(self) -> None:
        self.gradients: dict[str, Tensor] = {}

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        if not self.gradients:
            self.gradients = gradients(pl_module.model)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    assert found
    return found


def plain_step(model: nn.Module, examples: list[Any]) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of one padded batch by transformers' own loss."""
    batch = collate(examples, 1)
    model.train()
    mask = (batch["input_ids"] != 0).long()  # the toys' padding, which no example holds
    loss = model(input_ids=batch["input_ids"], attention_mask=mask, labels=batch["labels"]).loss
    loss.backward()
    return float(loss.detach()), gradients(model)


def our_step(
    run_dir: Path, model: nn.Module, batch_size: int, accumulate: int
) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of the same examples through the whole fit."""
    import json

    assert speed_up(model)
    keep = KeepGradients()
    fit_toy(
        run_dir, make_module(model), toy_data(6, 4, batch_size, accumulate), [keep],
        max_steps=1, batch_size=batch_size, accumulate=accumulate, gradient_clip=None,
    )  # fmt: skip
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["values"].get("train_loss") for line in lines]
    return next(loss for loss in losses if loss is not None), keep.gradients


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "llama", "gemma2"])
@pytest.mark.parametrize(("batch_size", "accumulate"), [(6, 1), (2, 3), (4, 2)])
def test_step_equals_plain_peft(
    tmp_path: Path, architecture: str, batch_size: int, accumulate: int
) -> None:
    """Also where the micro-batches have unequal sizes (4 + 2) and unequal answers."""
    expected_loss, expected = plain_step(
        adapted(tiny_base(architecture), dropout=0.0), make_examples(6, 1)
    )
    loss, found = our_step(
        tmp_path, adapted(tiny_base(architecture), dropout=0.0), batch_size, accumulate
    )
    assert loss == pytest.approx(expected_loss, abs=1e-5)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("bits", ["nf4", "int8"])
def test_gradients_are_the_same_before_and_after_an_evaluation(tmp_path: Path, bits: str) -> None:
    """With the validation at the start and without it."""
    found = []
    for at_start in (False, True):
        keep = KeepGradients()
        model = adapted(quantised_base(bits, tmp_path / "base"), dropout=0.0)
        fit_toy(
            tmp_path / str(at_start), make_module(model), None, [keep], max_steps=1,
            validate_at_start=at_start,
        )  # fmt: skip
        found.append(keep.gradients)
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name])


@pytest.mark.parametrize("selective", [False, True])
@pytest.mark.parametrize("architecture", ["qwen3", "gemma2"])
def test_gradient_checkpointing_trains_every_adapter(
    tmp_path: Path, architecture: str, selective: bool
) -> None:
    """Same gradients as without, and every lora_B has moved."""
    from sizewise.models.adapter.attach import enable_checkpointing

    plain, recomputed = KeepGradients(), KeepGradients()
    fit_toy(
        tmp_path / "plain", make_module(adapted(tiny_base(architecture), 0.0)), None, [plain],
        max_steps=1,
    )  # fmt: skip
    model = adapted(tiny_base(architecture), 0.0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.zeros_(parameter)
    enable_checkpointing(model, selective)
    fit_toy(tmp_path / "zero", make_module(model), None, [], max_steps=2)
    assert all(p.abs().max() > 0 for n, p in model.named_parameters() if "lora_B" in n)

    model = adapted(tiny_base(architecture), 0.0)
    enable_checkpointing(model, selective)
    fit_toy(tmp_path / "recomputed", make_module(model), None, [recomputed], max_steps=1)
    for name, gradient in plain.gradients.items():
        torch.testing.assert_close(recomputed.gradients[name], gradient)


@pytest.mark.parametrize("bits", ["none", "nf4"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_what_is_computed_again_selectively_is_the_same(
    tmp_path: Path, bits: str, dropout: float
) -> None:
    """Products are kept, the rest is computed again with the same random numbers."""
    from sizewise.models.adapter.attach import enable_checkpointing

    found = []
    for selective in (False, True):
        base = tiny_base() if bits == "none" else quantised_base(bits, tmp_path / "base")
        model, keep = adapted(base, dropout), KeepGradients()
        assert speed_up(model)
        if selective:
            enable_checkpointing(model, selective=True)
        fit_toy(tmp_path / str(selective), make_module(model), None, [keep], max_steps=1)
        found.append(keep.gradients)
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient)
