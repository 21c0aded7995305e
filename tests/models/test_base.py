"""The loaded base: frozen, quiet, quantised where it should be, and its sizes."""

from __future__ import annotations

import gc
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sizewise.config.model import LoraConfig, QuantizationConfig
from sizewise.errors import ModelError
from sizewise.models.adapter.attach import attach_adapter, save_adapter
from sizewise.models.base import is_quantized, load_base, quantized_linears
from sizewise.models.head import answer_logits
from sizewise.models.size import model_sizes


def test_frozen_in_eval_mode_with_neutral_generation(base_of_type: Any, tokenizer: Any) -> None:
    base = base_of_type("llama")
    assert not base.training
    assert not any(p.requires_grad for p in base.parameters())
    changed = base.generation_config.to_diff_dict()
    allowed = {"bos_token_id", "eos_token_id", "pad_token_id", "transformers_version"}
    assert set(changed) - allowed == set()
    assert base.generation_config.eos_token_id == tokenizer.eos_token_id


def test_a_repetition_penalty_of_the_model_does_not_leak(tiny: Any, tmp_path: Path) -> None:
    import json
    import shutil

    from sizewise.config.model import ModelConfig

    folder = Path(shutil.copytree(tiny("llama").path, tmp_path / "m"))
    (folder / "generation_config.json").write_text(json.dumps({"repetition_penalty": 1.3}))
    base = load_base(ModelConfig(name="x", path=str(folder)))
    assert base.generation_config.repetition_penalty in (None, 1.0)


def test_repacking_is_switched_off_on_every_4_bit_layer(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bitsandbytes.nn.modules as modules

    monkeypatch.setattr(modules, "has_avx512bf16", lambda: True)
    layers = quantized_linears(load_base(tiny("llama"), QuantizationConfig(method="nf4")))
    assert len(layers) == 14
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers.values())


@pytest.mark.parametrize("method", ["int8", "nf4"])
def test_what_is_quantised(method: str, tiny: Any) -> None:
    base = load_base(tiny("gemma3"), QuantizationConfig(method=method))
    names = quantized_linears(base)
    assert len(names) == 14
    assert all("language_model" in name for name in names)
    assert is_quantized(base)
    assert type(base.get_output_embeddings()) is nn.Linear


def test_settings_reach_bitsandbytes(tiny: Any) -> None:
    settings = QuantizationConfig(method="nf4", double_quant=False, compute_dtype="bfloat16")
    layer = next(iter(quantized_linears(load_base(tiny("llama"), settings)).values()))
    assert layer.compute_dtype == torch.bfloat16
    assert layer.weight.quant_type == "nf4"
    assert not layer.weight.quant_state.nested
    nested = load_base(tiny("llama"), QuantizationConfig(method="nf4"))
    assert next(iter(quantized_linears(nested).values())).weight.quant_state.nested


@pytest.mark.parametrize("model_type", ["qwen2", "gemma3"])
def test_sizes_do_not_depend_on_the_quantisation(model_type: str, tiny: Any) -> None:
    config, lora = tiny(model_type), LoraConfig(r=4)
    sizes = {}
    for method in ("none", "int8", "nf4"):
        base = load_base(config, QuantizationConfig(method=method))
        sizes[method] = model_sizes(attach_adapter(base, lora, config, 1))
    plain = sizes["none"]
    for other in sizes.values():
        assert (other.total, other.trainable, other.base) == (
            plain.total, plain.trainable, plain.base,
        )  # fmt: skip
    assert plain.total == plain.base + plain.trainable
    assert plain.adapter_bytes == 4 * plain.trainable
    assert sizes["nf4"].memory_bytes < plain.memory_bytes
    assert sizes["int8"].memory_bytes < plain.memory_bytes
    assert (plain.vision > 0) == (model_type == "gemma3")


def test_sizes_equal_a_plain_count(base_of_type: Any, tiny: Any, tmp_path: Path) -> None:
    base = base_of_type("qwen2")
    count = sum(p.numel() for p in base.parameters())
    sizes = model_sizes(base)
    assert (sizes.total, sizes.base, sizes.trainable, sizes.adapter_bytes) == (count, count, 0, 0)
    model = attach_adapter(base, LoraConfig(r=4), tiny("qwen2"), 1)
    stored = (save_adapter(model, tmp_path) / "adapter_model.safetensors").stat().st_size
    assert 0 < stored - model_sizes(model).adapter_bytes < 4096
    full = attach_adapter(base_of_type("qwen2"), LoraConfig(method="full"), tiny("qwen2"), 1)
    assert model_sizes(full).trainable == model_sizes(full).total == count
    assert model_sizes(full).adapter_bytes == 4 * count


def test_no_warning_walls(tiny: Any, batch: Any, caplog: Any, recwarn: Any, capsys: Any) -> None:
    gc.collect()  # what earlier tests left open is said when it is collected
    recwarn.clear()
    base = load_base(tiny("llama"), QuantizationConfig(method="int8"))
    model = attach_adapter(base, LoraConfig(), tiny("llama"), 1)
    answer_logits(model, batch).sum().backward()
    hidden = (ResourceWarning, DeprecationWarning)  # Python itself shows neither to a user
    assert [str(w.message) for w in recwarn if not issubclass(w.category, hidden)] == []
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == []
    printed = capsys.readouterr()
    assert printed.out + printed.err == ""


FP4 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def test_a_base_published_in_mxfp4_is_unpacked(tiny: Any, tmp_path: Path) -> None:
    """Two 4-bit numbers a byte, the lower half first, times a power of two for each 32 of them."""
    folder = tmp_path / "packed"
    shutil.copytree(tiny("gpt_oss").path, folder)
    weights, draw = load_file(folder / "model.safetensors"), torch.Generator().manual_seed(0)
    expected = {}
    for name in [name for name in weights if name.endswith(("gate_up_proj", "down_proj"))]:
        experts, inputs, outputs = weights.pop(name).shape
        shape = (experts, outputs, inputs // 32, 16)
        blocks = torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8)
        scales = torch.randint(120, 128, shape[:3], generator=draw, dtype=torch.uint8)
        weights |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        pairs = torch.stack([FP4[(blocks & 15).long()], FP4[(blocks >> 4).long()]], -1)
        values = pairs.flatten(-2) * 2.0 ** (scales[..., None].float() - 127)
        expected[name] = values.flatten(-2).transpose(1, 2)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": []}
    (folder / "config.json").write_text(json.dumps(config))
    model = replace(tiny("gpt_oss"), path=str(folder))
    loaded = dict(load_base(model).named_parameters())
    assert len(expected) == 4
    for name, values in expected.items():
        torch.testing.assert_close(loaded[name].float(), values, atol=0, rtol=0)
    with pytest.raises(ModelError, match=r"published in mxfp4.*quantization=none"):
        load_base(model, QuantizationConfig(method="nf4"))
