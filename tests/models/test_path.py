"""The path of every architecture: load, train, evaluate, save, reload; also in 8 and 4 bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from sizewise.config.model import LoraConfig, QuantizationConfig
from sizewise.models.adapter.attach import attach_adapter, base_only, load_adapter, save_adapter
from sizewise.models.architecture import BUILDERS, ENCODERS
from sizewise.models.base import load_base
from sizewise.models.head import answer_logits, answer_targets


def loss_of(model: Any, batch: dict[str, torch.Tensor], seq2seq: bool) -> torch.Tensor:
    return cross_entropy(answer_logits(model, batch), answer_targets(batch, seq2seq))


@torch.no_grad()
def evaluated(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    model.eval()
    return answer_logits(model, batch)


def gradients(model: Any, batch: dict[str, torch.Tensor], seq2seq: bool) -> list[torch.Tensor]:
    model.zero_grad()
    torch.manual_seed(0)  # T5's own dropout
    loss_of(model, batch, seq2seq).backward()
    return [p.grad.clone() for p in model.parameters() if p.requires_grad]


@pytest.mark.parametrize("method", ["none", "int8", "nf4"])
@pytest.mark.parametrize("model_type", sorted(BUILDERS.keys() - ENCODERS))
def test_trains_evaluates_and_reloads(
    model_type: str, method: str, tiny: Any, batch: Any, plain_lora: LoraConfig, tmp_path: Path
) -> None:
    config, seq2seq = tiny(model_type), model_type == "t5"
    base = load_base(config, QuantizationConfig(method=method))
    untouched = evaluated(base, batch)
    model = attach_adapter(base, plain_lora, config, seed=1)
    assert torch.equal(evaluated(model, batch), untouched), "lora_B starts at zero"

    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = loss_of(model, batch, seq2seq)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]

    tuned = evaluated(model, batch)
    assert (tuned - untouched).abs().max() > 1e-3
    with base_only(model):
        torch.testing.assert_close(evaluated(model, batch), untouched, atol=0, rtol=0)
    save_adapter(model, tmp_path)
    again = load_adapter(load_base(config, QuantizationConfig(method=method)), tmp_path)
    torch.testing.assert_close(evaluated(again, batch), tuned, atol=1e-6, rtol=0)
    assert not any(p.requires_grad for p in again.parameters())


@pytest.mark.parametrize("method", ["none", "int8", "nf4"])
@pytest.mark.parametrize("model_type", ["llama", "qwen2", "t5"])
def test_gradients_are_the_same_before_and_after_an_evaluation(
    model_type: str, method: str, tiny: Any, batch: Any, plain_lora: LoraConfig
) -> None:
    config, seq2seq = tiny(model_type), model_type == "t5"
    base = load_base(config, QuantizationConfig(method=method))
    model = attach_adapter(base, plain_lora, config, seed=1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(parameter, 0.02)
    model.train()
    before = gradients(model, batch, seq2seq)
    evaluated(model, batch)
    with base_only(model), torch.no_grad():
        answer_logits(model, batch)
    model.train()
    after = gradients(model, batch, seq2seq)
    assert len(before) > 0
    for first, second in zip(before, after, strict=True):
        torch.testing.assert_close(second, first, atol=1e-6, rtol=1e-5)
    assert max(g.abs().max() for g in before) > 0


@pytest.mark.parametrize("method", ["int8", "nf4"])
def test_quantised_logits_do_not_depend_on_the_batch(method: str, tiny: Any, batch: Any) -> None:
    base = load_base(tiny("qwen2"), QuantizationConfig(method=method))
    together = evaluated(base, batch)
    rows = [{key: value[i : i + 1] for key, value in batch.items()} for i in range(3)]
    alone = torch.cat([evaluated(base, row) for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
