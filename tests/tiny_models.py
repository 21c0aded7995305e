"""Tiny random models in memory, and what an adapter covers of a model."""

from __future__ import annotations

from transformers import PreTrainedModel

from sizewise.config.model import LoraConfig, LoraTargets
from sizewise.models.adapter.targets import choose_targets
from sizewise.models.tiny import BASE_SEED, build_random, tiny_config


def build_tiny(model_type: str, vocab_size: int, seed: int = BASE_SEED) -> PreTrainedModel:
    """Build a tiny random model of ``model_type`` (llama, gemma3, t5, …)."""
    return build_random(tiny_config(model_type, vocab_size), seed)


def resolve_targets(base: PreTrainedModel, target: str, known: LoraTargets) -> list[str]:
    """Return the ends of names that ``lora.target`` stands for, each found in ``base``."""
    return choose_targets(base, LoraConfig(target=target), known).names
