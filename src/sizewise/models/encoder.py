"""A fine-tuned encoder: its head over the training answers, and what is around the head."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sizewise.config.model import LoraConfig, LoraTargets, ModelConfig
from sizewise.errors import ModelError
from sizewise.files import parse_json, write_atomically
from sizewise.models.adapter.wrapping import base_of
from sizewise.models.architecture import CLASSIFIES, model_config
from sizewise.models.base import load_base
from sizewise.models.masks import known, padding_of
from sizewise.runtime import seeded

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CLASSES = "classes.json"
# Ends of the names of attention layers, where an option names none itself.
ATTENTION = (
    "query", "key", "value", "query_proj", "key_proj", "value_proj", "q_proj", "k_proj", "v_proj",
    "q_lin", "k_lin", "v_lin", "out_lin", "Wqkv", "attn.Wo", "attention.output.dense",
)  # fmt: skip
# Their first position has the number after that of padding (fairseq's way).
POSITIONS_BEHIND_PADDING = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet")


def load_encoder(
    model: ModelConfig, classes: Sequence[str], device: torch.device, seed: int
) -> PreTrainedModel:
    """Load a base with a head over ``classes``; what of the head is not stored is drawn.

    Raises:
        ModelError: weights of the body are missing, left over, or cannot be reached.
    """
    with seeded(seed):
        return load_base(model, device=device, classes=classes)


def class_logits(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    """Return the scores (B, C) of all classes from ``input_ids`` and ``attention_mask`` (B, T)."""
    base: Any = base_of(model)
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    with known(padded=padding_of(batch)):
        logits_BC: Tensor = base(**inputs).logits
    return logits_BC


def positions(model: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return how many tokens the encoder reads, begin and end included."""
    config = model_config(model)
    own = getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length
    if config.model_type in POSITIONS_BEHIND_PADDING:
        own -= (config.pad_token_id or 0) + 1
    return int(min(own, tokenizer.model_max_length))


def head_modules(base: PreTrainedModel) -> list[str]:
    """Return names of the modules that are the head: all beside the body, and its pooler."""
    body = base.base_model_prefix
    beside = [name for name, m in base.named_children() if name != body and _has_weights(m)]
    pooler = getattr(base.base_model, "pooler", None)
    return [*beside, *([f"{body}.pooler"] if isinstance(pooler, nn.Module) else [])]


def _has_weights(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def around_head(
    base: PreTrainedModel, lora: LoraConfig, model: ModelConfig
) -> tuple[LoraConfig, ModelConfig]:
    """Return the settings with which an adapter leaves the head alone and it is trained whole.

    Those of a base that does not classify are returned as they are.
    """
    if base.config.problem_type != CLASSIFIES:
        return lora, model
    head = head_modules(base)
    own, known = rf"(?:{'|'.join(map(re.escape, head))})(?:\..*)?", model.lora_targets
    exclude = f"{known.exclude}|{own}" if known.exclude else own
    names = [name for name, module in base.named_modules() if isinstance(module, nn.Linear)]
    there = [end for end in ATTENTION if any(f".{name}".endswith(f".{end}") for name in names)]
    targets = LoraTargets(known.attention or there, known.all_linear, exclude)
    saved = dict.fromkeys([*lora.modules_to_save, *head])
    return replace(lora, modules_to_save=list(saved)), replace(model, lora_targets=targets)


def write_classes(classes: Sequence[str], folder: Path) -> None:
    """Write beside an adapter which answer each row of its head stands for."""
    write_atomically(folder / CLASSES, json.dumps(list(classes), ensure_ascii=False) + "\n")


def read_classes(folder: Path) -> tuple[str, ...]:
    """Read what ``write_classes`` wrote.

    Raises:
        ModelError: it is not there or damaged.
    """
    try:
        found = parse_json((folder / CLASSES).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"adapter={str(folder)!r}: {CLASSES}, which names the answers of an encoder's head, "
            f"cannot be read ({error}). Give the folder `adapter` of a run with model.family="
            "encoder."
        ) from error
    if not isinstance(found, list) or not found or not all(isinstance(x, str) for x in found):
        raise ModelError(f"{folder / CLASSES} is no list of answers. Train the encoder again.")
    return tuple(found)
