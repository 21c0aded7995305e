"""The options of the group ``model``: published sizes, target names, tiny versions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from tests.tiny_models import resolve_targets

from sizewise.config import LoraConfig, ModelConfig, conf_dir
from sizewise.models.architecture import context_length, meta_model, model_config
from sizewise.models.base import load_base
from sizewise.models.encoder import around_head
from sizewise.models.tokenizer import load_tokenizer

PUBLISHED = {
    "gemma4b": 4_300_079_472,
    "gemma2b": 2_506_172_416,
    "gemma2_2b": 2_614_341_888,
    "phi3mini": 3_821_079_552,
    "qwen3b": 3_085_938_688,
    "llama3b": 3_212_749_824,
    "llama8b": 8_030_261_248,
    "mistral7b": 7_248_023_552,
    "flan_t5_small": 76_961_152,
    "flan_t5_base": 247_577_856,
    "flan_t5_large": 783_150_080,
    "gemma3_270m": 268_098_176,
    "gemma3_1b": 999_885_952,
    "gemma3_12b": 12_187_325_040,
    "gemma3_27b": 27_432_406_640,
    "llama1b": 1_235_814_400,
    "llama70b": 70_553_706_496,
    "ministral8b": 8_019_808_256,
    "mistral_small": 23_572_403_200,
    "phi4mini": 3_836_021_760,
    "qwen3_0_6b": 596_049_920,
    "qwen3_1_7b": 1_720_574_976,
    "qwen3_4b": 4_022_468_096,
    "qwen3_8b": 8_190_735_360,
    "qwen3_14b": 14_768_307_200,
    "qwen3_32b": 32_762_123_264,
    "smollm2_135m": 134_515_008,
    "smollm2_360m": 361_821_120,
    "smollm2_1_7b": 1_711_376_384,
    "smollm3_3b": 3_075_098_624,
    "gpt_oss_20b": 20_914_757_184,
    "lfm2_350m": 354_483_968,
    "lfm2_700m": 742_489_344,
    "lfm2_1_2b": 1_170_340_608,
    "lfm2_2_6b": 2_569_272_320,
    "granite4_micro": 3_402_836_480,
    "granite4_h_micro": 3_191_396_096,
    "gemma4_e2b": 5_104_297_504,
    "gemma4_e4b": 7_941_100_832,
}
LADDER = ("nano", "micro", "mini")
# Of the body: what is published counts a head of masked words besides (ModernBERT: 149,655,232 with
# 640,960 of it; RoBERTa: 124,697,433 with 642,393).
ENCODERS = {
    "minilm_l6": 22_713_216,
    "roberta_base": 124_055_040,
    "deberta_v3_base": 183_831_552,
    "modernbert_base": 149_014_272,
}


def option(name: str) -> ModelConfig:
    node = OmegaConf.load(conf_dir() / "model" / f"{name}.yaml")
    merged = OmegaConf.merge(OmegaConf.structured(ModelConfig), node)
    config = OmegaConf.to_object(merged)
    assert isinstance(config, ModelConfig)
    return config


def test_every_option_with_figures_is_checked_here() -> None:
    paths = list(Path(conf_dir() / "model").glob("*.yaml"))
    figured = {path.stem for path in paths if "architecture" in OmegaConf.load(path)}
    assert figured == {*PUBLISHED, *LADDER, *ENCODERS}
    assert {*PUBLISHED, *LADDER, *ENCODERS, "local", "encoder"} <= {path.stem for path in paths}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_published(name: str) -> None:
    model = option(name)
    meta = meta_model(model_config(model))
    assert sum(p.numel() for p in meta.parameters()) == PUBLISHED[name]
    assert all(p.is_meta for p in meta.parameters())
    targets = model.lora_targets
    assert resolve_targets(meta, "all_linear", targets) == targets.all_linear
    attention = set(resolve_targets(meta, "attention", targets))
    # All other weights of gpt-oss are in its experts, which are stacks and no linear layers.
    assert (
        attention == set(targets.all_linear)
        if name == "gpt_oss_20b"
        else (attention < set(targets.all_linear))
    )
    assert model.license


@pytest.mark.parametrize("name", ENCODERS)
def test_parameters_of_encoders_are_those_published(name: str) -> None:
    model = option(name)
    meta = meta_model(model_config(model))
    assert sum(p.numel() for p in meta.base_model.parameters()) == ENCODERS[name]
    _, known = around_head(meta, LoraConfig(), model)
    targets = known.lora_targets
    assert resolve_targets(meta, "all_linear", targets) == targets.all_linear
    assert set(resolve_targets(meta, "attention", targets)) < set(targets.all_linear)
    assert model.license


@pytest.mark.parametrize("name", LADDER)
def test_the_ladder_matches_its_targets(name: str) -> None:
    model = option(name)
    meta = meta_model(model_config(model))
    assert resolve_targets(meta, "all_linear", model.lora_targets) == model.lora_targets.all_linear
    assert (context_length(model) or 0) >= 128


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_tiny_version_has_the_same_class_and_needs_no_network(name: str) -> None:
    model = option(name)
    model.init = "tiny_random"
    base, tokenizer = load_base(model), load_tokenizer(model)
    assert type(base) is type(meta_model(model_config(model)))
    assert sum(p.numel() for p in base.parameters()) < 400_000
    assert base.get_input_embeddings().num_embeddings >= len(tokenizer)
    again = load_base(model)
    assert all(map(torch.equal, base.parameters(), again.parameters()))
    tied = base.get_input_embeddings().weight is base.get_output_embeddings().weight
    assert model.architecture is not None
    assert tied == model.architecture.tied_embeddings


def test_context_length() -> None:
    assert context_length(option("gemma2b")) == 8192
    assert context_length(option("flan_t5_small")) is None


def test_random_weights_of_the_real_size(tiny: object) -> None:
    model = option("nano")
    model.init = "random"
    base = load_base(model)
    pretrained = load_base(option("nano"))
    assert [p.shape for p in base.parameters()] == [p.shape for p in pretrained.parameters()]
    assert not torch.equal(next(base.parameters()), next(pretrained.parameters()))
