"""The best weights so far, by validation loss."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytorch_lightning as pl
from safetensors import safe_open
from safetensors.torch import load_file, save_file

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
