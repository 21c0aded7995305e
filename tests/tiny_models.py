"""Tiny random models in memory."""

from __future__ import annotations

from transformers import PreTrainedModel

from sizewise.models.tiny import BASE_SEED, build_random, tiny_config


def build_tiny(model_type: str, vocab_size: int, seed: int = BASE_SEED) -> PreTrainedModel:
    """Build a tiny random model of ``model_type`` (llama, gemma3, t5, …)."""
    return build_random(tiny_config(model_type, vocab_size), seed)
