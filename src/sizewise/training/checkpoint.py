"""``last.ckpt``: everything an interrupted fit needs, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import CheckpointIO
from pytorch_lightning.callbacks import Checkpoint

from sizewise.errors import TrainingError
from sizewise.training.interrupt import StopRequest
from sizewise.training.loop import StepCallback
from sizewise.training.milestones import Milestones
from sizewise.training.shape import BatchShape

LAST = "last.ckpt"
SHAPE = "sizewise_shape"


class AtomicCheckpointIO(CheckpointIO):
    """Writes beside the target, flushes to the disk and renames; reads without pickle.

    Lightning's own writes to the temporary folder and moves, which is no single step where that
    is another file system.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write ``checkpoint`` so that ``path`` is always whole."""
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint; tensors and plain values only."""
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)


def write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write beside ``path``, flush, and rename into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as handle:
        torch.save(checkpoint, handle)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint to host memory; tensors and plain values only, never pickled code.

    Raises:
        TrainingError: it is damaged or holds something else.
    """
    try:
        loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise TrainingError(
            f"{path} cannot be read: {str(error).splitlines()[0]} Delete it to train this run "
            "from the start."
        ) from error
    return loaded


class LastCheckpoint(StepCallback, Checkpoint):
    """Saves ``last.ckpt`` at the end of an optimiser step: periodically and after validations.

    It runs after every other callback (Lightning puts checkpoints last), so that what they did in
    this step is in it. When the process was asked to stop, it saves and stops the fit.

    Args:
        path: the file.
        every: optimiser steps between two saves, or None for after validations only.
        shape: the batch shape in use, stored so that a resumed run keeps it.
        failed: the batch shapes that did not fit into memory.
        milestones: tells when a validation has run.
        stop: tells when the process was asked to stop.
    """

    def __init__(
        self,
        path: Path,
        every: int | None,
        shape: BatchShape,
        failed: list[dict[str, int]],
        milestones: Milestones,
        stop: StopRequest,
    ) -> None:
        self.path = path
        self.every = every
        self.shape = shape
        self.failed = failed
        self.milestones = milestones
        self.stop = stop

    def on_step_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save if it is time to."""
        step = trainer.global_step
        due = self.every is not None and step % self.every == 0
        stopping = self.stop.agreed(trainer)
        if due or stopping or self.milestones.validated_step == step:
            trainer.save_checkpoint(self.path, weights_only=False)
        if stopping:
            self.stop.leave()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store the batch shape, and mend Lightning's count of epochs."""
        mend_epoch_progress(checkpoint, trainer.current_epoch)
        checkpoint[SHAPE] = {**self.shape.as_dict(), "out_of_memory": self.failed}


def mend_epoch_progress(checkpoint: dict[str, Any], epoch: int) -> None:
    """Write the loop's state as that of epoch ``epoch`` under way.

    A fit resumed from the last step of an epoch does not count the next one as begun
    (pytorch-lightning 2.6); resumed a second time it would take that epoch for a finished one and
    repeat it from its start.
    """
    progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]
    counts = {"ready": epoch + 1, "started": epoch + 1, "processed": epoch, "completed": epoch}
    for name in ("total", "current"):
        progress[name] = dict(counts)
