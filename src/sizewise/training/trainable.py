"""The trainable weights of a model: all that training changes, and all that is checkpointed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from sizewise.devices import device_of
from sizewise.errors import TrainingError
from sizewise.models.adapter import full
from sizewise.models.adapter.attach import WEIGHTS, adapter_weights
from sizewise.models.base import fit_weights
from sizewise.training.seat import wait_for_device
from sizewise.training.sharding import share_of, whole

ANOTHER = (
    "It belongs to another configuration: use another run directory, or delete it to start afresh."
)


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the trainable parameters by name (references, not copies)."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def with_tied_names(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``weights`` with every further name that a parameter of ``model`` has.

    PEFT asks for a trained embedding that is tied to the head under both of its names.
    """
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    every = model.named_parameters(remove_duplicate=False)
    names = [(name, first[id(parameter)]) for name, parameter in every]
    return {name: weights[known] for name, known in names if known in weights}


@torch.no_grad()
def load_trainable(model: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Copy ``state`` into the trainable parameters of ``model``, in place.

    Raises:
        TrainingError: names or shapes differ; nothing has been copied then.
    """
    own = trainable_state(model)
    fit_weights(own, state, where, ANOTHER, TrainingError)
    for name, parameter in own.items():
        parameter.copy_(share_of(state[name], parameter))


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Copy the trainable parameters to host memory; all processes have to, of a divided model."""
    wait_for_device(device_of(model))
    return {name: whole(p).to("cpu", copy=True) for name, p in trainable_state(model).items()}


def load_exported(model: nn.Module, folder: Path) -> None:
    """Put the weights of an adapter folder into ``model``, which carries the same kind of adapter.

    Raises:
        TrainingError: the folder's weights are not exactly those that this model trains.
    """
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    if full.is_full(model):
        load_trainable(model, load_file(str(folder / full.WEIGHTS)), str(folder))
        return
    weights = load_file(str(folder / WEIGHTS))
    fit_weights(adapter_weights(model), weights, str(folder), ANOTHER, TrainingError)
    set_peft_model_state_dict(model, weights)
