"""The trainable weights of a model: all that training changes, and all that is checkpointed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from sizewise.errors import TrainingError


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the trainable parameters by name (references, not copies)."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def load_trainable(model: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Copy ``state`` into the trainable parameters of ``model``, in place.

    Raises:
        TrainingError: names or shapes differ; nothing has been copied then.
    """
    own = trainable_state(model)
    missing, extra = own.keys() - state.keys(), state.keys() - own.keys()
    shapes = {n for n in own.keys() & state.keys() if own[n].shape != state[n].shape}
    for what, names in (("missing", missing), ("unexpected", extra), ("of another shape", shapes)):
        if names:
            raise TrainingError(
                f"{where} does not fit this model: {len(names)} trainable weights are {what} "
                f"(for example {min(names)}). It belongs to another configuration: "
                "use another run directory, or delete it to start afresh."
            )
    for name, parameter in own.items():
        parameter.copy_(state[name])


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Copy the trainable parameters to host memory."""
    return {name: p.to("cpu", copy=True) for name, p in trainable_state(model).items()}


def load_exported(model: nn.Module, folder: Path) -> None:
    """Put the weights of an adapter folder into ``model``, which carries the same kind of adapter.

    Raises:
        TrainingError: the folder's weights are not exactly those that this model trains.
    """
    from safetensors.torch import load_file

    from sizewise.models.adapter import full
    from sizewise.models.adapter.attach import WEIGHTS

    if full.is_full(model):
        load_trainable(model, load_file(str(folder / full.WEIGHTS)), str(folder))
        return
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    weights = load_file(str(folder / WEIGHTS))
    odd = get_peft_model_state_dict(model, save_embedding_layers=False).keys() ^ weights.keys()
    if odd:
        raise TrainingError(
            f"{folder} does not fit this model: {len(odd)} weights differ (for example "
            f"{min(odd)}). It belongs to another configuration: use another run directory."
        )
    set_peft_model_state_dict(model, weights)
