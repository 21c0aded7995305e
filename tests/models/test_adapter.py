"""Adapters: seeds, precision, targets, strict loading, checkpointing, scale."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny_models import resolve_targets

from sizewise.config.model import LoraConfig, LoraTargets, ModelConfig, QuantizationConfig
from sizewise.errors import ModelError
from sizewise.models.adapter.attach import (
    adapted_modules,
    attach_adapter,
    base_only,
    enable_checkpointing,
    load_adapter,
    save_adapter,
)
from sizewise.models.base import load_base
from sizewise.models.head import answer_logits

WEIGHTS = "adapter_model.safetensors"


def hash_of(model: Any, part: str = "lora_A") -> str:
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if part in name:
            digest.update(parameter.detach().numpy().tobytes())
    return digest.hexdigest()


def test_the_same_seed_gives_the_same_adapter(base_of_type: Any, tiny: Any) -> None:
    hashes = []
    for noise, seed in ((1, 7), (2, 7), (3, 8)):
        torch.manual_seed(noise)
        model = attach_adapter(base_of_type("llama"), LoraConfig(), tiny("llama"), seed)
        hashes.append(hash_of(model))
    assert hashes[0] == hashes[1] != hashes[2]
    fixed = attach_adapter(base_of_type("llama"), LoraConfig(init_seed=7), tiny("llama"), 99)
    assert hash_of(fixed) == hashes[0]


def test_attaching_leaves_the_global_random_state(base_of_type: Any, tiny: Any) -> None:
    base = base_of_type("llama")
    torch.manual_seed(5)
    state = torch.get_rng_state()
    attach_adapter(base, LoraConfig(), tiny("llama"), 1)
    assert torch.equal(torch.get_rng_state(), state)


def test_training_mode_and_dropout_are_active(base_of_type: Any, tiny: Any, batch: Any) -> None:
    lora = LoraConfig(dropout=0.5)
    model = attach_adapter(base_of_type("llama"), lora, tiny("llama"), 1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(parameter, 0.1)
    assert model.training
    assert not torch.equal(answer_logits(model, batch), answer_logits(model, batch))
    model.eval()
    assert torch.equal(answer_logits(model, batch), answer_logits(model, batch))


@pytest.mark.parametrize("method", ["lora", "dora", "rslora"])
def test_scale_and_method(method: str, base_of_type: Any, tiny: Any) -> None:
    lora = LoraConfig(method=method, r=4, dropout=0.0)
    model = attach_adapter(base_of_type("llama"), lora, tiny("llama"), 1)
    layers = [m for m in model.modules() if hasattr(m, "lora_A")]
    assert len(layers) == 14
    assert all(layer.scaling["default"] == pytest.approx(lora.scale) for layer in layers)
    assert lora.effective_alpha == 8.0
    magnitudes = [n for n, _ in model.named_parameters() if "lora_magnitude" in n]
    assert len(magnitudes) == (14 if method == "dora" else 0)


def test_adapters_are_fp32_on_a_16_bit_base(tiny: Any, batch: Any) -> None:
    config = ModelConfig(**{**vars(tiny("llama")), "dtype": "bfloat16"})
    model = attach_adapter(load_base(config), LoraConfig(), config, 1)
    trained = {p.dtype for p in model.parameters() if p.requires_grad}
    frozen = {p.dtype for p in model.parameters() if not p.requires_grad}
    assert trained == {torch.float32}
    assert frozen == {torch.bfloat16}
    assert answer_logits(model, batch).dtype == torch.bfloat16


def test_gemma3_adapts_its_language_model_only(base_of_type: Any, tiny: Any) -> None:
    unknown = ModelConfig(**{**vars(tiny("gemma3")), "lora_targets": LoraTargets()})
    model = attach_adapter(base_of_type("gemma3"), LoraConfig(), unknown, 1)
    names = adapted_modules(model)
    assert len(names) == 14
    assert all("language_model" in name for name in names)
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    assert not any("vision" in n or "projector" in n for n in trained)


@pytest.mark.parametrize("model_type", ["llama", "gemma3", "phi3"])
def test_checkpointing_trains_every_lora_b(
    model_type: str, base_of_type: Any, tiny: Any, batch: Any, plain_lora: LoraConfig
) -> None:
    model = attach_adapter(base_of_type(model_type), plain_lora, tiny(model_type), 1)
    enable_checkpointing(model)
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        answer_logits(model, batch).square().sum().backward()
        optimizer.step()
    lora_b = {n: p for n, p in model.named_parameters() if "lora_B" in n}
    assert len(lora_b) == (8 if model_type == "phi3" else 14)
    assert all(p.abs().max() > 0 for p in lora_b.values())


def test_targets_by_name_and_by_kind(base_of_type: Any) -> None:
    llama, phi3, t5 = (base_of_type(name) for name in ("llama", "phi3", "t5"))
    assert resolve_targets(llama, "q_proj, down_proj", LoraTargets()) == ["q_proj", "down_proj"]
    assert resolve_targets(llama, "attention", LoraTargets()) == sorted(
        ["q_proj", "k_proj", "v_proj", "o_proj"]
    )
    fused = ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]
    assert resolve_targets(phi3, "all_linear", LoraTargets()) == fused
    assert resolve_targets(t5, "all_linear", LoraTargets()) == [
        "k", "o", "q", "v", "wi_0", "wi_1", "wo",
    ]  # fmt: skip


@pytest.mark.parametrize("target", ["q_proj,nonsense", "nonsense", "lm_head", " , "])
def test_a_target_that_matches_nothing_raises(target: str, base_of_type: Any, tiny: Any) -> None:
    with pytest.raises(ModelError, match=r"no linear module.*q_proj"):
        attach_adapter(base_of_type("llama"), LoraConfig(target=target), tiny("llama"), 1)


@pytest.fixture
def saved(base_of_type: Any, tiny: Any, plain_lora: LoraConfig, tmp_path: Path) -> Path:
    model = attach_adapter(base_of_type("llama"), plain_lora, tiny("llama"), 1)
    return save_adapter(model, tmp_path / "adapter")


def test_missing_unexpected_and_misshapen_weights_raise(saved: Path, base_of_type: Any) -> None:
    weights = load_file(saved / WEIGHTS)
    name = sorted(weights)[0]
    damaged = {
        "missing": {k: v for k, v in weights.items() if k != name},
        "unexpected": weights | {"base_model.model.odd.lora_A.weight": torch.zeros(2)},
        "of another shape": weights | {name: torch.zeros(1, 1)},
    }
    for message, content in damaged.items():
        save_file(content, saved / WEIGHTS)
        with pytest.raises(ModelError, match=message):
            load_adapter(base_of_type("llama"), saved)


def test_another_bases_adapter_raises(saved: Path, base_of_type: Any) -> None:
    with pytest.raises((ModelError, ValueError), match=r"fit|not found"):
        load_adapter(base_of_type("phi3"), saved)


def test_a_trainable_reload_can_go_on(saved: Path, base_of_type: Any) -> None:
    model = load_adapter(base_of_type("llama"), saved, trainable=True)
    assert model.training
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) > 0


def test_only_the_adapter_is_saved(saved: Path) -> None:
    assert {p.name for p in saved.iterdir()} <= {WEIGHTS, "adapter_config.json", "README.md"}
    assert all("lora_" in name for name in load_file(saved / WEIGHTS))


def test_an_adapter_that_is_not_there_raises(base_of_type: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="adapter"):
        load_adapter(base_of_type("llama"), tmp_path)
    with pytest.raises(ModelError, match="neither an existing folder"):
        load_adapter(base_of_type("llama"), tmp_path / "no" / "where")


@pytest.mark.parametrize("model_type", ["llama", "gemma3", "t5"])
def test_full_fine_tuning(
    model_type: str, base_of_type: Any, tiny: Any, batch: Any, tmp_path: Path
) -> None:
    base = base_of_type(model_type)
    with torch.no_grad():
        untouched = answer_logits(base, batch)
    model = attach_adapter(base, LoraConfig(method="full"), tiny(model_type), 1)
    frozen = [n for n, p in model.named_parameters() if not p.requires_grad]
    assert all("vision" in n or "projector" in n for n in frozen)
    assert bool(frozen) == (model_type == "gemma3")
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    answer_logits(model, batch).square().mean().backward()
    optimizer.step()
    with pytest.raises(ModelError, match="untouched base"), base_only(model):
        pass
    save_adapter(model, tmp_path)
    again = load_adapter(base_of_type(model_type), tmp_path)
    model.eval()
    with torch.no_grad():
        tuned = answer_logits(model, batch)
        assert torch.equal(answer_logits(again, batch), tuned)
    assert not torch.equal(tuned, untouched)


def test_full_fine_tuning_refuses_quantised_weights(tiny: Any) -> None:
    base = load_base(tiny("llama"), QuantizationConfig(method="nf4"))
    with pytest.raises(ModelError, match="quantised"):
        attach_adapter(base, LoraConfig(method="full"), tiny("llama"), 1)
