"""A ``.gguf`` file as ``model.path``: read, adapted, quantised, merged and named like any base."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import quantize
from tests.job.runs import run

from sizewise.composition.shorthand import spelt_out
from sizewise.config.model import LoraConfig, ModelConfig, QuantizationConfig
from sizewise.errors import ModelError
from sizewise.models import sources
from sizewise.models.adapter.attach import attach_adapter, load_adapter, save_adapter
from sizewise.models.base import is_quantized, load_base
from sizewise.models.head import answer_logits
from sizewise.models.sources import find_source, local_content, weights_fingerprint
from sizewise.models.tokenizer import load_tokenizer

NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
OUTER = {
    "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}  # fmt: skip


def write_gguf(path: Path, base: Any, tokenizer: Any, kind: Any) -> None:
    """Write a tiny Llama as llama.cpp's converter does, its matrices as ``kind``."""
    config, writer = base.config, gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, tokenizer, config.vocab_size)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, tensor in base.state_dict().items():
        values, written = tensor.float().numpy(), OUTER.get(name)
        if written is None:
            _, _, layer, rest = name.split(".", 3)
            part = NAMES[rest.removesuffix(".weight")]
            written = f"blk.{layer}.{part}.weight"
            if part in heads:  # rotary halves side by side
                split = values.reshape(heads[part], 2, -1, values.shape[1])
                values = split.swapaxes(1, 2).reshape(values.shape)
        packed = kind if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(written, quantize(np.ascontiguousarray(values), packed), raw_dtype=packed)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: Any, tokenizer: Any, size: int) -> None:
    told = json.loads(tokenizer.backend_tokenizer.to_str())
    by_id = {i: token for token, i in tokenizer.get_vocab().items()}
    special = set(tokenizer.all_special_ids)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([by_id.get(i, f"[unused{i}]") for i in range(size)])
    writer.add_token_types([3 if i in special else 1 for i in range(size)])
    merges = [m if isinstance(m, str) else " ".join(m) for m in told["model"]["merges"]]
    writer.add_token_merges(merges)
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)


@pytest.fixture
def packed(tiny: Any, tokenizer: Any, tmp_path: Path) -> Any:
    """A function: kind of storage → the ModelConfig of a GGUF file."""

    def get(kind: str = "F32") -> ModelConfig:
        path = tmp_path / f"tiny-{kind}.gguf"
        if not path.exists():
            kinds = gguf.GGMLQuantizationType
            write_gguf(path, load_base(tiny("llama")), tokenizer, getattr(kinds, kind))
        return ModelConfig(name="packed", path=str(path))

    return get


def test_a_gguf_file_is_the_base_that_it_was_made_of(packed: Any, tiny: Any, batch: Any) -> None:
    expected = load_base(tiny("llama"))
    base = load_base(packed())
    assert base.name_or_path == packed().path
    assert {p.dtype for p in base.parameters()} == {torch.float32}
    torch.testing.assert_close(answer_logits(base, batch), answer_logits(expected, batch))
    eight = answer_logits(load_base(packed("Q8_0")), batch)
    difference = (eight - answer_logits(expected, batch)).abs().max()
    assert 0 < difference < 0.05, "eight bits a weight"


def test_its_tokenizer_and_template_come_with_it(packed: Any, tokenizer: Any) -> None:
    own = load_tokenizer(packed())
    text = "A patient, 40 years old, coughs."
    assert own(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert own.chat_template == tokenizer.chat_template
    assert (own.eos_token, own.pad_token) == (tokenizer.eos_token, tokenizer.pad_token)


@pytest.mark.parametrize("method", ["none", "nf4"])
def test_an_adapter_is_trained_saved_and_merged_on_it(
    method: str, packed: Any, batch: Any, tmp_path: Path
) -> None:
    model, storage = packed("Q8_0"), QuantizationConfig(method=method)
    base = load_base(model, storage)
    assert is_quantized(base) == (method == "nf4")
    tuned = attach_adapter(base, LoraConfig(r=2), model, seed=0)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    expected = answer_logits(tuned.eval(), batch)
    save_adapter(tuned, tmp_path / "adapter")
    again = load_adapter(load_base(model, storage), tmp_path / "adapter")
    torch.testing.assert_close(answer_logits(again, batch), expected)
    if method == "none":
        merged = again.merge_and_unload(safe_merge=True)
        merged.save_pretrained(tmp_path / "merged")
        plain = load_base(ModelConfig(name="merged", path=str(tmp_path / "merged")))
        torch.testing.assert_close(answer_logits(plain, batch), expected, atol=1e-5, rtol=1e-4)


def test_a_whole_run_on_a_gguf_file(packed: Any, tmp_path: Path) -> None:
    place = packed("Q8_0").path
    assert spelt_out([f"model={place}"])[0] == "model=local"
    outcome = run(tmp_path, "run", "model=local", f"model.path={place}", "model.name=packed")
    assert outcome.model.path == place
    assert outcome.model.base_bytes == Path(place).stat().st_size
    assert outcome.tuned.keys() == outcome.base.keys()


def test_another_file_is_another_base(packed: Any, tmp_path: Path) -> None:
    first, second = (local_content({"path": packed(kind).path}) for kind in ("F32", "Q8_0"))
    assert None not in (first, second)
    assert first != second
    source = find_source(packed().path)
    assert (source.folder, source.weight_files()) == (None, [Path(packed().path)])
    assert weights_fingerprint(source.place) != weights_fingerprint(packed("Q8_0").path)


def test_what_is_no_gguf_file_or_cannot_be_read_is_said(
    packed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"PK\x03\x04")
    with pytest.raises(ModelError, match="does not begin as GGUF files do"):
        find_source(str(broken))
    with pytest.raises(ModelError, match="neither an existing folder or GGUF file"):
        find_source(str(tmp_path / "missing.gguf"))
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(Path(packed().path).read_bytes()[:4000])
    with pytest.raises(ModelError, match=r"cut\.gguf"):
        load_base(replace(packed(), path=str(cut)))
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'sizewise\[gguf\]'"):
        find_source(packed().path)
