"""``last.ckpt`` and the best weights: everything an interrupted fit needs, whole or not at all.

Both carry checksums, which are looked at before a fit goes on from them (``stored_shape``).
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import CheckpointIO
from pytorch_lightning import Callback, Trainer
from pytorch_lightning import LightningModule as Module
from pytorch_lightning.callbacks import Checkpoint
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sizewise.errors import TrainingError
from sizewise.files import parse_json, sealed, unsealed, written_whole, zip_damage
from sizewise.record.directories import RunDir
from sizewise.training.interrupt import StopRequest
from sizewise.training.lightning_internals import State, StepCallback
from sizewise.training.milestones import Milestones
from sizewise.training.module import AnswerModule
from sizewise.training.trainable import load_trainable, snapshot

log = logging.getLogger(__name__)
HEADER = "sizewise"
BEST_STEP = "sizewise_best"


class BestWeights(Callback):
    """Keeps the trainable weights with the lowest validation loss in one file.

    Step and loss (None before the first validation) are in the file's own header, so that weights
    and record cannot disagree. The file may be one validation ahead of the checkpoint that a killed
    run resumes from; the run then reaches the same step again, which is no better than the file's
    and leaves it.
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
        if self.path.is_file():
            record, _ = read_best(self.path)
            self.step, self.loss = record["step"], record["loss"]

    def on_validation_end(self, trainer: Trainer, pl_module: Module) -> None:
        loss = pl_module.val_loss if isinstance(pl_module, AnswerModule) else None
        if loss is not None and (self.loss is None or loss < self.loss):
            self._keep(trainer, pl_module, loss)

    def on_train_end(self, trainer: Trainer, pl_module: Module) -> None:
        """Without any validation the last weights are the best."""
        if self.step is None:
            self._keep(trainer, pl_module, None)

    def _keep(self, trainer: Trainer, pl_module: Module, loss: float | None) -> None:
        self.step, self.loss = trainer.global_step, loss
        weights = snapshot(pl_module.model)
        if trainer.is_global_zero:
            write_best(self.path, weights, {"step": self.step, "loss": loss})

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Module, checkpoint: State) -> None:
        """Note that there are best weights, without which the checkpoint is of no use."""
        checkpoint[BEST_STEP] = self.step

    def load_into(self, module: AnswerModule) -> None:
        """Put the best weights into the model; TrainingError if damaged or of another model."""
        load_trainable(module.model, read_best(self.path)[1], str(self.path))


def write_best(path: Path, weights: Mapping[str, torch.Tensor], record: dict[str, Any]) -> None:
    """Write weights with step and loss, and the hash of all of it, in the header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in weights.items()}
    header = sealed({**record, "weights": _weights_hash(tensors)})
    with written_whole(path, path.with_name(f".{path.name}.tmp")) as temporary:
        save_file(tensors, str(temporary), metadata={HEADER: json.dumps(header)})


def read_best(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return step and loss, and the weights; those of an earlier version carry no hash.

    Raises:
        TrainingError: the file is damaged.
    """
    try:
        with safe_open(str(path), framework="pt") as handle:
            record = unsealed(parse_json(handle.metadata()[HEADER]))
        weights = load_file(str(path))
        if record.get("weights") not in (None, _weights_hash(weights)):
            raise ValueError("its weights are not what was written")
        return {name: record[name] for name in ("step", "loss")}, weights
    except Exception as error:  # whatever a flipped bit makes of it
        raise damaged(path, error) from error


def _weights_hash(weights: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def damaged(path: Path, error: object) -> TrainingError:
    why = (str(error).splitlines() or [type(error).__name__])[0]
    return TrainingError(
        f"{path} cannot be read ({why}). Start the same command again: it trains from the start."
    )


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
        return {"batch_size": self.batch_size, "accumulate": self.accumulate}


SHAPE = "sizewise_shape"


class AtomicCheckpointIO(CheckpointIO):
    """Writes beside the target, flushes to the disk and renames; reads without pickle.

    Lightning's own writes to the temporary folder and moves, which is no single step where that
    is another file system.
    """

    def save_checkpoint(
        self, checkpoint: State, path: str | Path, storage_options: Any = None
    ) -> None:
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write beside ``path``, flush, and rename into place, so that it is always whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}.tmp")
    with written_whole(path, hidden) as temporary, temporary.open("wb") as handle:
        torch.save(checkpoint, handle)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint to host memory; tensors and plain values only, never pickled code.

    Raises:
        TrainingError: it is damaged or holds something else.
    """
    # torch writes checksums, and does not look at them.
    if (why := zip_damage(path)) is not None:
        raise damaged(path, why)
    try:
        loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise damaged(path, error) from error
    if SHAPE not in loaded:
        raise damaged(path, "it is no checkpoint of a fit")
    return loaded


def stored_shape(run: RunDir, wanted: BatchShape) -> tuple[BatchShape, list[dict[str, int]]]:
    """Return the batch shape that an interrupted fit goes on with, and those that had failed.

    Where something that it left is damaged, that is said and all of it removed: the fit begins
    anew. Best weights without a checkpoint are not looked at, since it then does so in any case.
    """
    last, best = run.last_checkpoint, run.best_weights
    if not last.is_file():
        return wanted, []
    try:
        checkpoint = read_checkpoint(last)
        if best.is_file():
            read_best(best)
        elif checkpoint.get(BEST_STEP) is not None:
            raise damaged(best, "it is gone")
    except TrainingError as error:
        log.warning("This run is trained from the start: %s", str(error).split(" Start")[0])
        shutil.rmtree(run.checkpoints, ignore_errors=True)
        return wanted, []
    shape = checkpoint[SHAPE]
    return BatchShape(shape["batch_size"], shape["accumulate"]), shape["out_of_memory"]


@dataclass(eq=False)
class LastCheckpoint(StepCallback, Checkpoint):
    """Saves ``last.ckpt`` at the end of an optimiser step: periodically and after validations.

    It runs after every other callback (Lightning puts checkpoints last), so that what they did in
    this step is in it. When the process was asked to stop, it saves and stops the fit. ``every``
    counts optimiser steps between two saves (None: after validations only); the batch ``shape`` in
    use and those that ``failed`` are stored, so that a resumed run keeps them.
    """

    path: Path
    every: int | None
    shape: BatchShape
    failed: list[dict[str, int]]
    milestones: Milestones
    stop: StopRequest

    def on_step_end(self, trainer: Trainer, pl_module: Module) -> None:
        step = trainer.global_step
        due = self.every is not None and step % self.every == 0
        stopping = self.stop.agreed(trainer)
        reached = step in (self.milestones.validated_step, self.milestones.rung)
        if due or stopping or reached:
            trainer.save_checkpoint(self.path, weights_only=False)
        if stopping:
            self.stop.leave()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Module, checkpoint: State) -> None:
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
