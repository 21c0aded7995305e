"""Full fine-tuning: all weights of the language model are trained, saved and loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from sizewise.errors import ModelError
from sizewise.models.base import VISION_MODULES, fit_weights, is_quantized

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


WEIGHTS = "full_model.safetensors"
MARKER = "full_model.json"
FLAG = "_sizewise_full"


def make_trainable(base: PreTrainedModel) -> PreTrainedModel:
    """Free every weight of the language model (vision parts stay frozen).

    Raises:
        ModelError: the base is quantised, so that its weights cannot be trained.
    """
    if is_quantized(base):
        raise ModelError(
            "lora=full cannot train quantised weights. Set quantization=none, or train an adapter."
        )
    for name, parameter in base.named_parameters():
        parameter.requires_grad_(not any(part in name for part in VISION_MODULES))
    setattr(base, FLAG, True)
    base.train()
    return base


def is_full(model: nn.Module) -> bool:
    """Whether ``model`` was made trainable in full (or loaded from such a checkpoint)."""
    return bool(getattr(model, FLAG, False))


def trained_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the language model's weights by name, each shared tensor once."""
    return {
        name: parameter.detach().contiguous()
        for name, parameter in model.named_parameters()
        if not any(part in name for part in VISION_MODULES)
    }


def save(model: nn.Module, folder: Path) -> Path:
    from safetensors.torch import save_file

    weights = trained_weights(model)
    save_file(weights, str(folder / WEIGHTS), metadata={"format": "pt"})
    facts = {"method": "full", "class": type(model).__name__, "tensors": len(weights)}
    (folder / MARKER).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return folder


def is_full_checkpoint(folder: Path) -> bool:
    return (folder / MARKER).is_file()


def load(base: PreTrainedModel, folder: Path, trainable: bool) -> PreTrainedModel:
    """Put fully trained weights into ``base``.

    Raises:
        ModelError: names or shapes differ, or the base is quantised.
    """
    from safetensors.torch import load_file

    model = make_trainable(base)
    weights = load_file(str(folder / WEIGHTS))
    fit_weights(
        trained_weights(base), weights, f"The weights in {str(folder)!r}",
        "Load them on the base they were trained from.",
    )  # fmt: skip
    model.load_state_dict(weights, strict=False)
    if not trainable:
        model.requires_grad_(False)
    return model.train(trainable)
