"""Optimisers over the trainable parameters, and learning-rate schedules per optimiser step."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from sizewise.config.training import OptimizerConfig, SchedulerConfig
from sizewise.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler


OptimizerFactory = Callable[[Iterable["nn.Parameter"]], "Optimizer"]
FUSED_DEVICES = ("cpu", "cuda")


def parameter_groups(
    parameters: Iterable[nn.Parameter], weight_decay: float
) -> list[dict[str, Any]]:
    """Divide parameters into decayed and undecayed ones.

    Matrices (``lora_A``, ``lora_B``, embeddings) decay. Vectors (DoRA's magnitudes, biases, norms)
    do not: pulling a scale towards zero regularises nothing.
    """
    kept = list(parameters)
    groups = [
        {"params": [p for p in kept if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in kept if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def make_optimizer_factory(
    optimizer: OptimizerConfig, allow_fused: bool = True
) -> OptimizerFactory:
    """Return a function from parameters to the optimiser that the configuration names.

    torch's fused implementation is used where the class has one and ``kwargs`` do not say
    otherwise. ``allow_fused`` has to be False under 16-bit loss scaling with gradient clipping,
    where a fused step would unscale the gradients after they were clipped.

    Raises:
        ConfigError: the class cannot be imported or does not take the given options.
    """
    from torch.optim import Optimizer

    target = import_class("optimizer.target", optimizer.target, Optimizer, "torch.optim.AdamW")

    def factory(parameters: Iterable[nn.Parameter]) -> Optimizer:
        groups = parameter_groups(parameters, optimizer.weight_decay)
        options = dict(optimizer.kwargs)
        if allow_fused and "fused" not in options and _can_fuse(target, groups):
            options["fused"] = True
        try:
            made: Optimizer = target(groups, lr=optimizer.lr, **options)
        except Exception as error:  # IndexError for betas of one number
            raise ConfigError(
                f"optimizer.kwargs={optimizer.kwargs} do not suit {optimizer.target}: {error}. "
                "Give arguments that its constructor takes."
            ) from error
        return made

    return factory


def _can_fuse(target: type[Optimizer], groups: list[dict[str, Any]]) -> bool:
    if not {"fused", "foreach"} <= set(inspect.signature(target).parameters):
        return False
    parameters = [p for group in groups for p in group["params"]]
    return all(p.device.type in FUSED_DEVICES and p.is_floating_point() for p in parameters)


Kind = TypeVar("Kind")


def import_class(key: str, path: str, kind: type[Kind], example: str) -> type[Kind]:
    """Return the class at an import path; nothing of it is called.

    Raises:
        ConfigError: it cannot be imported or is no ``kind``; the message names ``key``.
    """
    from hydra.utils import get_class

    try:
        found = get_class(path)
    except Exception as error:
        said = " ".join(str(error).split())
        raise ConfigError(
            f"{key}={path!r} cannot be imported: {said}. Give the import path of a class, such "
            f"as {example}."
        ) from error
    if not issubclass(found, kind):
        raise ConfigError(f"{key}={path!r} is not a {kind.__module__}.{kind.__qualname__}.")
    return found


SchedulerFactory = Callable[["Optimizer", int], "LRScheduler"]


def warmup_steps(warmup: float, total_steps: int) -> int:
    """Turn a share (below 1) or a number of steps into a number of steps."""
    steps = math.ceil(warmup * total_steps) if warmup < 1 else round(warmup)
    return min(steps, total_steps)


def lr_scale(name: str, step: int, warmup: int, total: int, min_ratio: float) -> float:
    """Factor on the peak learning rate in optimiser step ``step`` (counted from 0).

    The factor rises linearly to 1 over ``warmup`` steps (the first step is already above 0), then
    follows a half cosine (Loshchilov & Hutter 2017), a line, or stays; it ends at ``min_ratio``.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if name == "constant":
        return 1.0
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    course = 0.5 * (1 + math.cos(math.pi * progress)) if name == "cosine" else 1 - progress
    return min_ratio + (1 - min_ratio) * course


def make_scheduler_factory(scheduler: SchedulerConfig) -> SchedulerFactory:
    def factory(optimizer: Optimizer, total_steps: int) -> LRScheduler:
        from torch.optim.lr_scheduler import LambdaLR

        warmup = warmup_steps(scheduler.warmup, total_steps)

        def scale(step: int) -> float:
            return lr_scale(scheduler.name, step, warmup, total_steps, scheduler.min_ratio)

        return LambdaLR(optimizer, scale)

    return factory
