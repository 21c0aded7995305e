"""Which linear modules an adapter wraps, checked against the model that is there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from torch import nn

from sizewise.config.model import LoraTargets
from sizewise.errors import ModelError
from sizewise.models.base import VISION_MODULES, quantized_linears

if TYPE_CHECKING:
    from transformers import PreTrainedModel


ATTENTION_NAMES = (
    "q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "out_proj", "query_key_value", "dense",
    "c_attn", "q", "k", "v", "o", "Wqkv",
)  # fmt: skip


def resolve_targets(base: PreTrainedModel, target: str, known: LoraTargets) -> list[str]:
    """Turn ``lora.target`` into module names, each of which matches at least one linear layer.

    Args:
        base: the model (the meta device will do).
        target: ``attention``, ``all_linear`` or a comma-separated list of names.
        known: the names of the architecture; empty lists are derived from ``base``.

    Raises:
        ModelError: a name matches nothing; the message lists the names that exist.
    """
    linears = adaptable_linears(base, known.exclude)
    present = sorted({name.rsplit(".", 1)[-1] for name in linears})
    if target == "all_linear":
        names = list(known.all_linear) or present
    elif target == "attention":
        names = list(known.attention) or [n for n in present if n in ATTENTION_NAMES]
    else:
        names = [name.strip() for name in target.split(",") if name.strip()]
    missing = [name for name in names if not any(_matches(linear, name) for linear in linears)]
    if missing or not names:
        raise ModelError(
            f"lora.target={target!r}: no linear module is called {', '.join(missing) or target!r} "
            f"in {type(base).__name__}. It has: {', '.join(present)}."
        )
    return names


def adaptable_linears(base: PreTrainedModel, exclude: str | None = None) -> list[str]:
    """Return full names of the linear layers of the language model, less its output head."""
    import transformers.pytorch_utils as hf

    kinds = (nn.Linear, hf.Conv1D, *{type(m) for m in quantized_linears(base).values()})
    head = base.get_output_embeddings()
    pattern = re.compile(exclude_pattern(base, exclude) or r"(?!)")
    return [
        name
        for name, module in base.named_modules()
        if isinstance(module, kinds) and module is not head and not pattern.fullmatch(name)
    ]


def exclude_pattern(base: PreTrainedModel, exclude: str | None = None) -> str | None:
    """Regular expression of module names that are never adapted: the user's, and vision parts."""
    parts = [exclude] if exclude else []
    if getattr(base.config, "vision_config", None) is not None:
        parts.append(rf".*({'|'.join(VISION_MODULES)}).*")
    return "|".join(f"(?:{part})" for part in parts) or None


def matching(linears: list[str], names: list[str]) -> set[str]:
    """Return the members of ``linears`` that one of ``names`` stands for."""
    return {linear for linear in linears if any(_matches(linear, name) for name in names)}


def _matches(linear: str, name: str) -> bool:
    return linear == name or linear.endswith(f".{name}")
