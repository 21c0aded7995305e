"""The transformers config of a base without its weights: from our figures or its config.json."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from sizewise.config.model import ModelConfig
from sizewise.models.architecture import to_transformers_config, untie_t5_head
from sizewise.models.configs import load_config
from sizewise.models.sources import find_source

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def model_config(model: ModelConfig) -> PretrainedConfig:
    """Return the config of the real-sized base; no weights and, with figures, no network."""
    if model.architecture is not None:
        return to_transformers_config(model.architecture)
    return load_config(find_source(model.path, model.revision, weights=False), model)


def meta_model(config: PretrainedConfig) -> PreTrainedModel:
    """Build the model on the meta device: names and shapes, no memory."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    auto: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.device("meta"):
        model: PreTrainedModel = auto.from_config(config)
    untie_t5_head(model)
    return model


def context_length(model: ModelConfig) -> int | None:
    """Return how many tokens the base has positions for; None for relative positions (T5)."""
    config = model_config(model)
    if config.is_encoder_decoder:
        return None
    positions: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    return positions
