"""Tiny checkpoints of every architecture, made once per session, and batches for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tools.embedded_models.tokenizer import train_tokenizer

from sizewise.config.model import LoraConfig, ModelConfig, QuantizationConfig
from sizewise.models.base import load_base
from sizewise.models.tiny import save_tiny_checkpoint

TEXTS = [f"A patient, {n} years old, coughs and has had fever for {n % 9} days." for n in range(90)]

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return train_tokenizer(TEXTS, 512)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Callable[[str], ModelConfig]:
    """A function: architecture → the ModelConfig of a tiny checkpoint with the tokenizer."""
    made: dict[str, ModelConfig] = {}

    def get(model_type: str) -> ModelConfig:
        if model_type not in made:
            folder = tmp_path_factory.mktemp(model_type)
            save_tiny_checkpoint(folder, model_type, tokenizer)
            family = "seq2seq" if model_type == "t5" else "causal"
            made[model_type] = ModelConfig(name=model_type, path=str(folder), family=family)
        return made[model_type]

    return get


@pytest.fixture
def base_of_type(tiny: Callable[[str], ModelConfig]) -> Callable[..., Any]:
    """A function: architecture (and quantisation) → a freshly loaded base."""

    def get(model_type: str, method: str = "none") -> Any:
        return load_base(tiny(model_type), QuantizationConfig(method=method))

    return get


@pytest.fixture
def batch(tokenizer: Any) -> dict[str, torch.Tensor]:
    """Three rows of 24 tokens (one right-padded), the first ten of each being prompt."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, len(tokenizer), (3, 24), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 18:] = 0
    labels = ids.clone()
    labels[:, :10] = -100
    labels[mask == 0] = -100
    return {"input_ids": ids * mask, "attention_mask": mask, "labels": labels}


@pytest.fixture
def plain_lora() -> LoraConfig:
    return LoraConfig(r=4, dropout=0.0)
