"""Learning-rate schedules per optimiser step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from sizewise.config.training import SchedulerConfig

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

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
    """Return a function from (optimizer, total optimiser steps) to the schedule."""

    def factory(optimizer: Optimizer, total_steps: int) -> LRScheduler:
        from torch.optim.lr_scheduler import LambdaLR

        warmup = warmup_steps(scheduler.warmup, total_steps)

        def scale(step: int) -> float:
            return lr_scale(scheduler.name, step, warmup, total_steps, scheduler.min_ratio)

        return LambdaLR(optimizer, scale)

    return factory
