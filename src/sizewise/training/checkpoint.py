"""``last.ckpt`` and the best weights: everything an interrupted fit needs, whole or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import CheckpointIO
from pytorch_lightning.callbacks import Checkpoint
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sizewise.errors import TrainingError
from sizewise.training.interrupt import StopRequest
from sizewise.training.lightning_internals import StepCallback
from sizewise.training.milestones import Milestones
from sizewise.training.module import AnswerModule
from sizewise.training.trainable import load_trainable, snapshot

BEST = "best.safetensors"


class BestWeights(pl.Callback):
    """Keeps the trainable weights with the lowest validation loss in one file.

    Step and loss are in the file's own header, so that weights and record cannot disagree. The
    file may be one validation ahead of the checkpoint that a killed run resumes from; the run then
    reaches the same step again, which is no better than the file's and leaves it.

    Attributes:
        step: optimiser step of the best weights, or None before the first validation.
        loss: their validation loss.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.step: int | None = None
        self.loss: float | None = None

    def forget(self) -> None:
        """Remove what an earlier, unfinished start left."""
        self.path.unlink(missing_ok=True)
        self.step = self.loss = None

    def recall(self) -> None:
        """Read step and loss of the stored weights, if there are any."""
        if self.path.is_file():
            with safe_open(str(self.path), framework="pt") as handle:
                record = json.loads(handle.metadata()["sizewise"])
            self.step, self.loss = record["step"], record["loss"]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the weights if they are better than all before."""
        loss = pl_module.val_loss if isinstance(pl_module, AnswerModule) else None
        if loss is not None and (self.loss is None or loss < self.loss):
            self._keep(trainer, pl_module, loss)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Without any validation the last weights are the best."""
        if self.step is None:
            self._keep(trainer, pl_module, None)

    def _keep(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: float | None) -> None:
        self.step, self.loss = trainer.global_step, loss
        if trainer.is_global_zero:
            record = {"step": self.step, "loss": loss}
            self._write(pl_module, {"sizewise": json.dumps(record)})

    def _write(self, pl_module: pl.LightningModule, metadata: dict[str, str]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        tensors = {k: v.contiguous() for k, v in snapshot(pl_module.model).items()}
        save_file(tensors, str(temporary), metadata=metadata)
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(self.path)

    def load_into(self, module: AnswerModule) -> None:
        """Put the best weights into the model."""
        load_trainable(module.model, load_file(str(self.path)), str(self.path))


@dataclass(frozen=True)
class BatchShape:
    """Examples per micro-batch and device, and micro-batches per optimiser step."""

    batch_size: int
    accumulate: int

    def smaller(self) -> BatchShape | None:
        """Return the next smaller micro-batch with the same effective batch, or None at 1.

        Even sizes are halved; others are divided by their smallest prime factor.
        """
        for factor in range(2, self.batch_size + 1):
            if self.batch_size % factor == 0:
                return BatchShape(self.batch_size // factor, self.accumulate * factor)
        return None

    def as_dict(self) -> dict[str, int]:
        """Return plain numbers."""
        return {"batch_size": self.batch_size, "accumulate": self.accumulate}


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


_BATCHES = "epoch_loop.batch_progress"


def rescaled(
    checkpoint: dict[str, Any], shape: BatchShape, failed: list[dict[str, int]]
) -> dict[str, Any]:
    """Return ``checkpoint`` with its counts of micro-batches multiplied.

    Checkpoints are written at the end of optimiser steps only, so that every count is a whole
    number of steps. Only the last step of an epoch may hold fewer micro-batches than this makes
    of it; the counts then lie beyond the epoch's end, which means the same.
    """
    factor = shape.accumulate // checkpoint[SHAPE]["accumulate"]
    loops = checkpoint["loops"]["fit_loop"]
    for loader in loops["state_dict"].get("combined_loader", ()):
        loader["position"] *= factor
    progress = loops[_BATCHES]
    for counts in (progress["total"], progress["current"]):
        done = counts["ready"] * factor
        # The save happened inside the last batch's hook, which counts as not completed.
        counts.update(ready=done, started=done, processed=done, completed=done - 1)
    checkpoint[SHAPE] = {**shape.as_dict(), "out_of_memory": failed}
    return checkpoint
