"""What is refused before a weight is loaded."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sizewise.config.model import LoraConfig, LoraTargets, ModelConfig, QuantizationConfig
from sizewise.config.training import OptimizerConfig, TrainerConfig
from sizewise.errors import ConfigError, ModelError
from sizewise.models import base as base_module
from sizewise.models import preflight
from sizewise.models.adapter.attach import adapter_folder
from sizewise.models.plan.planner import Workload, plan_memory
from sizewise.models.preflight import check_model

CPU = {"accelerator": "cpu"}


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(base_module, "_from_pretrained", forbidden)


def check(model: ModelConfig, lora: Any = None, quantization: str = "none", **trainer: Any) -> None:
    check_model(
        model,
        QuantizationConfig(method=quantization),
        lora or LoraConfig(),
        TrainerConfig(**(CPU | trainer)),
    )


@pytest.mark.parametrize("quantization", ["none", "int8", "nf4"])
@pytest.mark.parametrize("model_type", ["llama", "gemma3", "phi3", "t5"])
def test_what_works_passes(model_type: str, quantization: str, tiny: Any) -> None:
    check(tiny(model_type), quantization=quantization)


def test_a_target_that_does_not_exist(tiny: Any) -> None:
    with pytest.raises(ModelError, match=r"nonsense.*It has: .*q_proj"):
        check(tiny("llama"), LoraConfig(target="q_proj,nonsense"))
    wrong = ModelConfig(
        **{**vars(tiny("phi3")), "lora_targets": LoraTargets(all_linear=["q_proj"])}
    )
    with pytest.raises(ModelError, match="qkv_proj"):
        check(wrong)


def test_t5_is_not_trained_in_fp16(tiny: Any) -> None:
    with pytest.raises(ModelError, match="T5 family overflows"):
        check(tiny("t5"), precision="16-mixed")
    half = ModelConfig(**{**vars(tiny("t5")), "dtype": "float16"})
    with pytest.raises(ModelError, match="T5 family overflows"):
        check(half)
    check(half, LoraConfig(method="none"))
    check(tiny("llama"), precision="16-mixed")


def test_t5_is_refused_where_auto_means_fp16(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU without bf16, before anything is loaded there."""
    monkeypatch.setattr(preflight, "resolve_device", lambda trainer: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    with pytest.raises(ModelError, match=r"trainer\.precision=16-mixed: the T5 family"):
        check(tiny("t5"), accelerator="gpu")


def test_quantisation_that_cannot_run(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for method, strategy in (("int8", "fsdp"), ("nf4", "deepspeed")):
        with pytest.raises(ModelError, match=r"only NF4's are divided.*trainer.strategy=fsdp"):
            check(tiny("llama"), quantization=method, strategy=strategy)
    check(tiny("llama"), quantization="nf4", strategy="fsdp", devices=2)
    with pytest.raises(ModelError, match="lora=full"):
        check(tiny("llama"), LoraConfig(method="full"), quantization="nf4")
    monkeypatch.setattr(preflight, "resolve_device", lambda name: torch.device("mps"))
    with pytest.raises(ModelError, match="cannot run on mps"):
        check(tiny("llama"), quantization="nf4")
    monkeypatch.setattr(preflight, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install bitsandbytes"):
        check(tiny("llama"), quantization="int8")


def test_places_devices_and_families(tiny: Any) -> None:
    with pytest.raises(ModelError, match="HF_HOME"):
        check(ModelConfig(name="x", path="nobody/not-here"))
    other = ModelConfig(**{**vars(tiny("llama")), "tokenizer": "nobody/not-here"})
    with pytest.raises(ModelError, match=r"model\.tokenizer"):
        check(other)
    with pytest.raises(ModelError, match=r"model\.family=causal"):
        check(ModelConfig(**{**vars(tiny("llama")), "family": "seq2seq"}))
    with pytest.raises(ConfigError, match="not available on this machine"):
        check(tiny("llama"), accelerator="cuda" if not torch.cuda.is_available() else "mps")


def test_point_18_a_tokenizer_larger_than_the_embedding(tiny: Any, tmp_path: Path) -> None:
    """Refused by the job and by the plan, from config and tokenizer alone, and then made to fit."""
    shutil.copytree(tiny("llama").path, tmp_path / "tokenizer")
    from transformers import AutoTokenizer

    larger = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    larger.add_tokens(["<code>"])
    larger.save_pretrained(tmp_path / "tokenizer")
    model = replace(tiny("llama"), tokenizer=str(tmp_path / "tokenizer"))
    message = rf"id {len(larger) - 1} \('<code>'\).* has {len(larger) - 1} rows.*added_tokens"
    with pytest.raises(ModelError, match=message):
        check(model)
    adamw = OptimizerConfig(target="torch.optim.AdamW")
    arguments = (QuantizationConfig(), LoraConfig(), adamw, Workload(2, 12, 4, 4, 2), "cpu", False)
    with pytest.raises(ModelError, match=message):
        plan_memory(model, *arguments)
    added = replace(model, added_tokens=["<code>"])
    check(added)
    assert plan_memory(added, *arguments).total > plan_memory(tiny("llama"), *arguments).total


def test_point_18_special_tokens_that_nobody_writes_may_lie_beyond(
    tiny: Any, tmp_path: Path
) -> None:
    """As in Gemma 3 without vision, whose tokenizer has a token for images."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny("llama").path)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.save_pretrained(tmp_path)
    check(replace(tiny("llama"), tokenizer=str(tmp_path)))
    tokenizer.chat_template = "<image>" + tokenizer.chat_template
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="<image>"):
        check(replace(tiny("llama"), tokenizer=str(tmp_path)))


def test_point_23_a_rank_that_no_layer_can_use(tiny: Any) -> None:
    with pytest.raises(ModelError, match=r"lora\.r=1000000000 is larger .* \(32 at most\)"):
        check(tiny("llama"), LoraConfig(r=1_000_000_000))
    with pytest.raises(ModelError, match=r"lora\.rank_pattern\.q_proj=33"):
        check(tiny("llama"), LoraConfig(rank_pattern={"q_proj": 33}))
    check(tiny("llama"), LoraConfig(r=32))


def test_point_23_options_of_an_adapter_that_match_nothing(tiny: Any) -> None:
    with pytest.raises(ModelError, match="no module with weights is called 'embedding'"):
        check(tiny("llama"), LoraConfig(modules_to_save=["embedding"]))
    with pytest.raises(ModelError, match=r"layer 7\. The layers are 0 to 1"):
        check(tiny("llama"), LoraConfig(layers_to_transform=[7]))
    with pytest.raises(ModelError, match=r"model\.layers\.0\.mlp\.up_proj is quantised"):
        check(tiny("llama"), LoraConfig(modules_to_save=["up_proj"]), quantization="nf4")
    check(tiny("llama"), LoraConfig(modules_to_save=["lm_head"]), quantization="nf4")


@pytest.mark.parametrize("cut", ["half", "header", "empty"])
def test_point_23_truncated_weights_are_named(cut: str, tiny: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny("llama").path, tmp_path / "model"))
    file = folder / "model.safetensors"
    size = {"half": file.stat().st_size // 2, "header": 100, "empty": 0}[cut]
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ModelError, match=r"model\.safetensors is missing, damaged or cut off"):
        check(replace(tiny("llama"), path=str(folder)))


def test_point_23_a_shard_that_is_missing_is_named(tiny: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny("llama").path, tmp_path / "model"))
    (folder / "model.safetensors").rename(folder / "part-1.safetensors")
    shards = {"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(shards))
    with pytest.raises(ModelError, match=r"part-2\.safetensors is missing, damaged or cut off"):
        check(replace(tiny("llama"), path=str(folder)))


def test_point_23_a_truncated_adapter_is_named_before_weights(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"\x10\x00")
    with pytest.raises(
        ModelError, match=r"adapter_model\.safetensors is missing, damaged or cut off"
    ):
        adapter_folder(tmp_path)


def test_point_23_a_path_that_is_not_there_needs_no_large_library(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "import sizewise.runtime\n"
        "from sizewise.config.model import ModelConfig\n"
        "from sizewise.errors import ModelError\n"
        "from sizewise.models.sources import check_place\n"
        "try:\n"
        "    check_place(ModelConfig(name='x', path='/no/such/folder'))\n"
        "except ModelError as error:\n"
        "    print(error)\n"
        "print(sorted({'torch', 'transformers', 'peft', 'pytorch_lightning'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said, loaded = done.stdout.splitlines()
    assert "neither an existing folder or GGUF file nor a hub id" in said
    assert loaded == "[]"
