"""Random states of torch (CPU and device), NumPy and Python: captured, restored, checkpointed."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning import LightningModule as Module

from sizewise.training.lightning_internals import State


def capture(device: torch.device) -> dict[str, Any]:
    """Return every random state as tensors and plain numbers (loadable without pickle)."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    version, internal, gauss = random.getstate()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [
            name,
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            position,
            has_gauss,
            cached,
        ],
        "python": [version, list(internal), gauss],
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore(state: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(state["torch"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


class RandomState(Callback):
    """Keeps each rank's random states in the checkpoint.

    They are restored when the first batch of a resumed fit starts, since setting up a fit draws
    random numbers itself.
    """

    def __init__(self) -> None:
        self._pending: dict[str, Any] | None = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Module, checkpoint: State) -> None:
        own = capture(pl_module.device)
        states: list[Any] = [own]
        if trainer.world_size > 1:
            states = [None] * trainer.world_size
            torch.distributed.all_gather_object(states, own)
        checkpoint["sizewise_random"] = states

    def on_load_checkpoint(self, trainer: Trainer, pl_module: Module, checkpoint: State) -> None:
        """Remember this rank's state; a further rank that was not there before keeps its own."""
        states = checkpoint["sizewise_random"]
        if trainer.global_rank < len(states):
            self._pending = states[trainer.global_rank]

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Module, batch: Any, batch_idx: int
    ) -> None:
        if self._pending is not None:
            restore(self._pending, pl_module.device)
            self._pending = None
