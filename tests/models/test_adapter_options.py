"""Mixtures of experts, modules trained whole, added tokens, and targets other than names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, MixtralConfig, Qwen3MoeConfig

from sizewise.config.model import LoraConfig, LoraTargets, ModelConfig
from sizewise.config.training import TrainerConfig
from sizewise.errors import ModelError
from sizewise.models.adapter.attach import (
    adapted_modules,
    attach_adapter,
    base_only,
    cast_adapter,
    load_adapter,
    save_adapter,
)
from sizewise.models.adapter.targets import choose_targets
from sizewise.models.base import load_base
from sizewise.models.head import answer_logits
from sizewise.models.size import model_sizes
from sizewise.models.tokenizer import load_tokenizer
from sizewise.training.trainable import snapshot, with_tied_names

SIZES: dict[str, Any] = {
    "vocab_size": 512, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
MIXTURES = {
    "mixtral": lambda: MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2),
    "qwen3_moe": lambda: Qwen3MoeConfig(
        **SIZES, head_dim=8, moe_intermediate_size=16, num_experts=4, num_experts_per_tok=2
    ),
}


def mixture(name: str) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(MIXTURES[name]()).eval().requires_grad_(False)


def train(model: Any, batch: Any, steps: int = 2) -> torch.Tensor:
    """Take a few large steps and return the logits afterwards, in eval mode."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        answer_logits(model, batch).float().square().mean().backward()
        optimizer.step()
    return logits(model.eval(), batch)


@torch.no_grad()
def logits(model: Any, batch: Any) -> torch.Tensor:
    return answer_logits(model, batch)


def check_round_trip(
    model: Any, fresh: Callable[[], Any], batch: Any, tuned: torch.Tensor, folder: Path
) -> None:
    """Saved and loaded, merged and loaded, switched off and unloaded: each is what it should be."""
    with base_only(model):
        assert torch.equal(logits(model, batch), logits(fresh(), batch))
    save_adapter(model, folder / "adapter")
    again = load_adapter(fresh(), folder / "adapter")
    assert torch.equal(logits(again, batch), tuned)
    assert model_sizes(again).adapter_bytes == model_sizes(model).adapter_bytes > 0
    again.merge_and_unload(safe_merge=True).save_pretrained(folder / "merged")
    plain = AutoModelForCausalLM.from_pretrained(folder / "merged").eval()
    torch.testing.assert_close(logits(plain, batch), tuned, rtol=1e-4, atol=1e-5)
    assert torch.equal(logits(model.unload(), batch), logits(fresh(), batch))


@pytest.mark.parametrize("name", sorted(MIXTURES))
def test_all_linear_adapts_the_experts_of_a_mixture(name: str, batch: Any, tmp_path: Path) -> None:
    config = ModelConfig(name=name, path=name)
    model = attach_adapter(mixture(name), LoraConfig(r=2, dropout=0.05), config, 1)
    stacks = [n for n in adapted_modules(model) if "experts" in n]
    assert len(stacks) == 4
    assert any("gate_up_proj" in n for n in stacks)
    assert {n.rsplit(".", 1)[-1] for n in set(adapted_modules(model)) - set(stacks)} == {
        "q_proj", "k_proj", "v_proj", "o_proj",
    }  # fmt: skip
    rates = {getattr(m.lora_dropout["default"], "p", 0.0) for m in model.modules()
             if hasattr(m, "lora_dropout") and not hasattr(m, "parameter_name")}  # fmt: skip
    assert rates == {0.05}, "PEFT allows none beside experts: it is given to the other layers"
    tuned = train(model, batch)
    assert all(p.abs().max() > 0 for n, p in model.named_parameters() if "lora_B" in n)
    check_round_trip(model, lambda: mixture(name), batch, tuned, tmp_path)


def test_the_share_that_an_adapter_leaves_out_is_said(caplog: pytest.LogCaptureFixture) -> None:
    every = choose_targets(mixture("mixtral"), LoraConfig(), LoraTargets())
    assert every.left_out < 0.02, "the routers"
    config = ModelConfig(name="m", path="m")
    attach_adapter(mixture("mixtral"), LoraConfig(method="dora", r=2), config, 1)
    assert "leaves 89.0 %" in caplog.text
    assert "0 stacks of experts" in caplog.text


def test_targets_by_list_regex_and_layer(base_of_type: Any, tiny: Any) -> None:
    def wrapped(**options: Any) -> list[str]:
        lora = LoraConfig(r=2, **options)
        return adapted_modules(attach_adapter(base_of_type("llama"), lora, tiny("llama"), 1))

    listed: Any = ["q_proj", "v_proj"]
    assert wrapped(target=listed) == wrapped(target="q_proj,v_proj")
    assert len(wrapped(target=listed)) == 4
    first = wrapped(layers_to_transform=[1])
    assert len(first) == 7
    assert all(".layers.1." in name for name in first)
    assert wrapped(target=r"regex:.*layers\.0\.mlp\..*") == [
        f"model.layers.0.mlp.{name}" for name in ("gate_proj", "up_proj", "down_proj")
    ]
    for options, message in (
        ({"layers_to_transform": [1, 2]}, "layer 2. The layers are 0 to 1"),
        ({"target": "regex:("}, "no regular expression"),
        ({"target": "regex:nothing"}, "It has: "),
        ({"rank_pattern": {"nothing": 4}}, "lora.rank_pattern: 'nothing' matches no adapted"),
    ):
        with pytest.raises(ModelError, match=message):
            wrapped(**options)


@pytest.mark.parametrize(("ratio", "scales"), [(2.0, (2.0, 2.0)), (None, (4.0, 8.0))])
def test_a_rank_pattern_has_the_alpha_of_all_unless_it_follows_the_rank(
    base_of_type: Any, tiny: Any, ratio: float | None, scales: tuple[float, float]
) -> None:
    whole, down = scales
    patterns: Any = {"rank_pattern": {"down_proj": 4}, "alpha_pattern": {"q_proj": 40.0}}
    lora = LoraConfig(r=8, alpha_ratio=ratio, **patterns)
    model = attach_adapter(base_of_type("llama"), lora, tiny("llama"), 1)
    layers = {n.rsplit(".", 1)[-1]: m for n, m in model.named_modules() if hasattr(m, "lora_A")}
    assert {n: (m.r["default"], m.scaling["default"]) for n, m in layers.items()} == {
        **{n: (8, whole) for n in layers}, "down_proj": (4, down), "q_proj": (8, 5.0),
    }  # fmt: skip


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("whole", ["embed_tokens", "lm_head"])
def test_modules_to_save_are_saved_and_merged(
    whole: str, tied: bool, tiny: Any, batch: Any, tmp_path: Path
) -> None:
    config = tiny("qwen2" if tied else "llama")
    lora = LoraConfig(r=2, dropout=0.0, modules_to_save=[whole])
    model = attach_adapter(load_base(config), lora, config, 1)
    before = model_sizes(load_base(config)).base
    assert model_sizes(model).base == before, "a trained copy is the adapter's"
    tuned = train(model, batch)
    check_round_trip(model, lambda: load_base(config), batch, tuned, tmp_path)


@pytest.mark.parametrize("whole", ["embed_tokens", "lm_head"])
def test_weights_gathered_from_many_processes_are_written_like_a_models_own(
    whole: str, tiny: Any, tmp_path: Path
) -> None:
    """PEFT asks for a tied embedding by both of its names; gathered weights have one of each."""
    config = tiny("qwen2")
    lora = LoraConfig(r=2, dropout=0.0, modules_to_save=[whole])
    model = attach_adapter(load_base(config), lora, config, 1)
    save_adapter(model, tmp_path / "own")
    save_adapter(model, tmp_path / "gathered", with_tied_names(model, snapshot(model)))
    own, gathered = (
        load_file(tmp_path / name / "adapter_model.safetensors") for name in ("own", "gathered")
    )
    assert own.keys() == gathered.keys()
    assert all(torch.equal(weight, gathered[name]) for name, weight in own.items())


def test_modules_to_save_are_fp32_on_a_16_bit_base(tiny: Any, batch: Any, tmp_path: Path) -> None:
    config = replace(tiny("llama"), dtype="bfloat16")
    lora = LoraConfig(r=2, dropout=0.0, modules_to_save=["embed_tokens", "lm_head"])
    model = attach_adapter(load_base(config), lora, config, 1)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    tuned = train(model, batch)
    assert tuned.dtype is torch.bfloat16
    save_adapter(model, tmp_path)
    again = load_adapter(load_base(config), tmp_path)
    assert torch.equal(logits(again, batch), tuned)
    cast_adapter(again, TrainerConfig(precision="bf16-true"))
    torch.testing.assert_close(logits(again, batch), tuned, rtol=0.1, atol=0.1)


def test_a_module_to_save_that_is_not_there(base_of_type: Any, tiny: Any) -> None:
    lora = LoraConfig(modules_to_save=["embeddings"])
    with pytest.raises(ModelError, match=r"called 'embeddings'.*It has: .*embed_tokens"):
        attach_adapter(base_of_type("llama"), lora, tiny("llama"), 1)


@pytest.mark.parametrize("model_type", ["qwen2", "llama", "gemma2"])
def test_added_tokens_are_trained_saved_and_merged(
    model_type: str, tiny: Any, batch: Any, tmp_path: Path
) -> None:
    config = replace(tiny(model_type), added_tokens=["<code>", "</code>"])
    tokenizer = load_tokenizer(config)
    new = tokenizer.convert_tokens_to_ids(config.added_tokens)
    assert len(tokenizer) == len(load_tokenizer(tiny(model_type))) + 2
    base = load_base(config)
    assert base.get_input_embeddings().num_embeddings > max(new)
    assert base.config.get_text_config().vocab_size > max(new)
    rows = batch["input_ids"].clone()
    rows[:, 12:14] = torch.tensor(new)
    labels = torch.where(batch["labels"] == -100, -100, rows)
    asked = {**batch, "input_ids": rows, "labels": labels}
    model = attach_adapter(base, LoraConfig(r=2, dropout=0.0), config, 1)
    untrained = base.get_input_embeddings().weight[new].detach().clone()
    tuned = train(model, asked)
    assert not torch.equal(model.get_base_model().get_input_embeddings().weight[new], untrained)
    check_round_trip(model, lambda: load_base(config), asked, tuned, tmp_path)


def test_point_21_a_resized_adapter_is_not_blamed_on_the_base(tiny: Any, tmp_path: Path) -> None:
    model = attach_adapter(load_base(tiny("llama")), LoraConfig(r=4), tiny("llama"), 1)
    file = save_adapter(model, tmp_path) / "adapter_model.safetensors"
    save_file({n: (w[:2] if "lora_A" in n else w) for n, w in load_file(file).items()}, file)
    message = r"\[2, \d+\] for \[4, \d+\]\).*if this is the one, the file was changed.* r=4\)"
    with pytest.raises(ModelError, match=message):
        load_adapter(load_base(tiny("llama")), tmp_path)
