"""Real weights and real tokenizers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sizewise.config.model import LoraConfig, ModelConfig, QuantizationConfig
from sizewise.models.adapter.attach import attach_adapter, load_adapter, save_adapter
from sizewise.models.base import load_base
from sizewise.models.head import answer_logits
from sizewise.models.size import model_sizes
from sizewise.models.tiny import save_tiny_checkpoint
from sizewise.models.tokenizer import load_tokenizer

pytestmark = pytest.mark.shared


@pytest.mark.parametrize("method", ["none", "int8", "nf4"])
def test_stories(method: str, shared_dir: Path, tmp_path: Path) -> None:
    config = ModelConfig(name="stories", path=str(shared_dir / "models" / "stories260K"))
    tokenizer = load_tokenizer(config)
    assert tokenizer.pad_token == "<unk>"
    base = load_base(config, QuantizationConfig(method=method))
    assert model_sizes(base).total == 260_032
    text = "Once upon a time there was a little girl who liked to play"
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    with torch.no_grad():
        nll = torch.nn.functional.cross_entropy(answer_logits(base, batch), ids[0, 1:])
    assert nll < 2.5, "a trained model knows its own stories"
    model = attach_adapter(base, LoraConfig(r=4), config, 1)
    save_adapter(model, tmp_path)
    again = load_adapter(load_base(config, QuantizationConfig(method=method)), tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(answer_logits(again, batch), answer_logits(model.eval(), batch))


@pytest.mark.parametrize(
    ("folder", "model_type", "family"), [("qwen2_5", "qwen2", "causal"), ("t5", "t5", "seq2seq")]
)
def test_tiny_models_with_real_tokenizers(
    folder: str, model_type: str, family: str, shared_dir: Path, tmp_path: Path
) -> None:
    source = ModelConfig(name="x", path=str(shared_dir / "tokenizers" / folder), family=family)
    tokenizer = load_tokenizer(source)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    save_tiny_checkpoint(tmp_path, model_type, tokenizer)
    config = ModelConfig(name="x", path=str(tmp_path), family=family)
    model = attach_adapter(load_base(config), LoraConfig(r=4), config, 1)
    ids = torch.tensor([load_tokenizer(config)("A code for asthma: J45.909")["input_ids"]])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    logits_NV = answer_logits(model, batch)
    assert logits_NV.shape[1] >= len(tokenizer)
    logits_NV.logsumexp(-1).sum().backward()
