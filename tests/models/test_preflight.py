"""What is refused before a weight is loaded."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sizewise.config.model import LoraConfig, LoraTargets, ModelConfig, QuantizationConfig
from sizewise.config.training import TrainerConfig
from sizewise.errors import ConfigError, ModelError
from sizewise.models import base as base_module
from sizewise.models import preflight
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
    with pytest.raises(ModelError, match="sharded"):
        check(tiny("llama"), quantization="nf4", strategy="fsdp")
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
