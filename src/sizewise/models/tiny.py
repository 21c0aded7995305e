"""Random checkpoints: tiny ones of a named architecture, and full-sized ones of given figures."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from sizewise.config.model import ArchitectureConfig, ModelConfig, VisionConfig
from sizewise.errors import ModelError
from sizewise.models.architecture import (
    auto_class,
    model_config,
    to_transformers_config,
    untie_t5_head,
)
from sizewise.models.tokenizer import load_tokenizer
from sizewise.runtime import quiet_libraries, seeded

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)
BASE_SEED = 0
TINY_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_layers": 2,
    "num_heads": 4,
    "head_dim": 16,
    "max_positions": 4096,
}
TINY_VISION = VisionConfig(
    hidden_size=32, intermediate_size=64, num_layers=1, num_heads=2, image_size=28, patch_size=14
)
# What makes an architecture its own and has to be shrunk, or spelt out, with its layers.
TINY_EXTRA: dict[str, dict[str, Any]] = {
    "gemma2": {
        "query_pre_attn_scalar": 16,
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"],
        "final_logit_softcapping": 30.0,
        "attn_logit_softcapping": 50.0,
    },
    "gemma3": {
        "query_pre_attn_scalar": 16,
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"],
        "mm_tokens_per_image": 4,
    },
    "gemma4": {
        "global_head_dim": 32,
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_kv_shared_layers": 2,
        "hidden_size_per_layer_input": 8,
        "final_logit_softcapping": 30.0,
        "audio": {
            "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "output_proj_dims": 32, "subsampling_conv_channels": [8, 4],
        },
    },
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16},
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_multiple_of": 16},
    "granitemoehybrid": {
        "layer_types": ["linear_attention", "full_attention"], "shared_intermediate_size": 64,
        "num_local_experts": 0, "num_experts_per_tok": 0, "position_embedding_type": "nope",
        "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_chunk_size": 16,
        "embedding_multiplier": 12.0, "attention_multiplier": 0.25, "residual_multiplier": 0.22,
        "logits_scaling": 8.0,
    },
    "t5": {"feed_forward_proj": "gated-gelu"},
}  # fmt: skip
TINY_EXTRA["gemma3_text"] = {
    key: value for key, value in TINY_EXTRA["gemma3"].items() if key != "mm_tokens_per_image"
}
TINY_DROPPED = ("rope_parameters", "sliding_window", "layer_types", "query_pre_attn_scalar")
UNTIED = ("llama", "mistral", "phi3", "t5", "gpt_oss")
SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


def tiny_figures(
    model_type: str, vocab_size: int, figures: ArchitectureConfig | None = None
) -> ArchitectureConfig:
    """Shrink an architecture to two layers of width 32 without changing its class.

    ``figures`` (the published ones, where known) keep what is not a size: tied embeddings,
    biases, grouped heads or not, caps. Positions stay plain, as scaled ones need their length.
    """
    grouped = figures is None or figures.num_kv_heads < figures.num_heads
    extra = dict(figures.extra) if figures else {}
    extra = {key: value for key, value in extra.items() if key not in TINY_DROPPED}
    base = figures or ArchitectureConfig(tied_embeddings=model_type not in UNTIED)
    return replace(
        base,
        model_type=model_type,
        vocab_size=vocab_size,
        num_kv_heads=2 if grouped else TINY_SIZES["num_heads"],
        decoder_layers=TINY_SIZES["num_layers"] if model_type == "t5" else None,
        vision=TINY_VISION if model_type in ("gemma3", "gemma4") else None,
        extra=extra | _tiny_extra(model_type, figures, vocab_size) | dict.fromkeys(SPECIAL_TOKENS),
        **(TINY_SIZES | ({"num_layers": 4} if model_type == "gemma4" else {})),
    )


def _tiny_extra(
    model_type: str, figures: ArchitectureConfig | None, vocab_size: int
) -> dict[str, Any]:
    found = dict(TINY_EXTRA.get(model_type, {}))
    published = figures.extra.get("layer_types") if figures else None
    if model_type == "granitemoehybrid" and published and "linear_attention" not in published:
        found |= {"layer_types": ["full_attention"] * 2, "position_embedding_type": "rope"}
    if model_type == "gemma4":  # a table of its own beside the embedding
        found["vocab_size_per_layer_input"] = vocab_size
    return found


def tiny_config(
    model_type: str, vocab_size: int, figures: ArchitectureConfig | None = None
) -> PretrainedConfig:
    """Return the transformers config of a tiny model; see ``tiny_figures``."""
    config = to_transformers_config(tiny_figures(model_type, vocab_size, figures))
    if model_type == "gemma4":
        config.image_token_id = config.video_token_id = config.audio_token_id = vocab_size
    if model_type == "gemma3":
        config.image_token_id = config.image_token_index = vocab_size
    return config


def build_random(config: PretrainedConfig, seed: int = BASE_SEED) -> PreTrainedModel:
    """Build a randomly initialised model in fp32; the global random state is left as it was."""
    quiet_libraries()
    with seeded(seed):
        model: PreTrainedModel = auto_class(config).from_config(config, dtype=torch.float32)
        untie_t5_head(model)
    return model.eval()


def save_tiny_checkpoint(
    folder: Path | str,
    model_type: str,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    vocab_size: int | None = None,
    figures: ArchitectureConfig | None = None,
    seed: int = BASE_SEED,
) -> Path:
    """Write a tiny random checkpoint (with its tokenizer, if given) and return its folder.

    Raises:
        ModelError: neither a tokenizer nor a vocabulary size is given.
    """
    if tokenizer is None and vocab_size is None:
        raise ModelError("save_tiny_checkpoint needs a tokenizer or a vocab_size.")
    size = max(vocab_size or 0, len(tokenizer) if tokenizer is not None else 0)
    config = tiny_config(model_type, size, figures)
    if tokenizer is not None:
        set_special_tokens(config, tokenizer)
        tokenizer.save_pretrained(str(folder))
    build_random(config, seed).save_pretrained(str(folder))
    return Path(folder)


def set_special_tokens(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write the tokenizer's special ids into the config (and into its text part)."""
    for part in {id(part): part for part in (config, config.get_text_config())}.values():
        for name in SPECIAL_TOKENS:
            setattr(part, name, getattr(tokenizer, name))
    if config.is_encoder_decoder:
        config.decoder_start_token_id = tokenizer.pad_token_id


@contextmanager
def random_checkpoint(model: ModelConfig) -> Iterator[Path]:
    """Write the random base that ``model.init`` asks for to a temporary folder.

    Random bases then take the same way as real ones, quantisation included.
    """
    with TemporaryDirectory(prefix="sizewise-random-") as folder:
        if model.init == "tiny_random":
            figures = model.architecture
            model_type = figures.model_type if figures else model_config(model).model_type
            save_tiny_checkpoint(folder, model_type, load_tokenizer(model), figures=figures)
        else:
            build_random(model_config(model)).save_pretrained(folder)
        yield Path(folder)
