"""A model and the adapter wrapped around it: which is which, and the one without the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from sizewise.errors import ModelError
from sizewise.models.adapter import full

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def is_adapted(model: nn.Module) -> bool:
    """Whether ``model`` is a base with a PEFT adapter."""
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")


def base_of(model: nn.Module) -> PreTrainedModel:
    """Return the transformers model itself, whether or not an adapter is wrapped around it."""
    wrapper: Any = model
    return cast("PreTrainedModel", wrapper.get_base_model() if is_adapted(model) else model)


def take_back(module: nn.Module, forward: Callable[..., Any]) -> None:
    """Give a module its class's forward again, where it had been given a partial of ``forward``."""
    if getattr(vars(module).get("forward"), "func", None) is forward:
        del module.forward


def adapted_modules(model: nn.Module) -> list[str]:
    """Return names (as in the base) of the modules, and stacks of experts, with an adapter."""
    return [
        ".".join(filter(None, (name.removesuffix(".base_layer"), getattr(m, "parameter_name", ""))))
        for name, m in base_of(model).named_modules()
        if hasattr(m, "lora_A")
    ]


@dataclass(frozen=True)
class LoraSettings:
    """How a model is trained: the method, and rank, alpha and scale of its adapter."""

    method: str
    r: int | None = None
    alpha: float | None = None
    scale: float | None = None


def lora_settings(model: nn.Module) -> LoraSettings:
    """Read off a model what its adapter is, wherever that was trained."""
    if full.is_full(model):
        return LoraSettings("full")
    if not is_adapted(model):
        return LoraSettings("none")
    wrapper: Any = model
    config = next(iter(wrapper.peft_config.values()))
    r, alpha = getattr(config, "r", None), getattr(config, "lora_alpha", None)
    if r is None or alpha is None:
        return LoraSettings(str(config.peft_type.value).lower())
    method = "dora" if config.use_dora else "rslora" if config.use_rslora else "lora"
    return LoraSettings(method, r, float(alpha), alpha / (r**0.5 if config.use_rslora else r))


@contextmanager
def base_only(model: nn.Module) -> Iterator[nn.Module]:
    """Use the same weights without the adapter (and in eval mode) inside the block.

    Raises:
        ModelError: the model was trained in full, so that its base no longer exists.
    """
    if full.is_full(model):
        raise ModelError(
            "A fully trained model has no untouched base in memory. "
            "Score the base before training, or load it again."
        )
    training = model.training
    wrapper: Any = model
    switched_off = wrapper.disable_adapter() if is_adapted(model) else nullcontext()
    model.eval()
    try:
        with switched_off:
            yield model
    finally:
        model.train(training)
