"""How long a fit is."""

from __future__ import annotations

from sizewise.config.training import TrainerConfig


def fit_plan(steps_per_epoch: int, trainer: TrainerConfig) -> tuple[int, int]:
    """Return (optimiser steps, passes over the data) that the limits allow."""
    limits: list[int] = []
    if trainer.max_epochs > 0:
        limits.append(trainer.max_epochs * steps_per_epoch)
    if trainer.max_steps > 0:
        limits.append(trainer.max_steps)
    total = min(limits)
    return total, -(-total // steps_per_epoch)
