"""Training and validation figures to every logger, and progress on a terminal or as lines."""

from __future__ import annotations

import logging
import math
import sys
import time
from typing import TYPE_CHECKING

from pytorch_lightning import Callback, Trainer
from pytorch_lightning import LightningModule as Module
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sizewise.record.progress import TRAINING, Tell, stage
from sizewise.training.lightning_internals import State, StepCallback, epoch_progress
from sizewise.training.module import AnswerModule, non_finite

if TYPE_CHECKING:
    from sizewise.record.study import PruningReporter

log = logging.getLogger(__name__)


class Recorder(StepCallback):
    """Logs by optimiser step, and stops a fit whose loss is not a number any more.

    Values are handed to the loggers before a checkpoint of the same step is written, so that a
    resumed run has every line once. A device is only waited for when something is logged.

    ``every`` counts optimiser steps. ``logged`` is the last step of each kind of record that this
    process has logged: a second attempt with smaller batches repeats steps, not their records.
    """

    def __init__(self, every: int, logged: dict[str, int]) -> None:
        self.every = every
        self.logged = logged

    def on_step_end(self, trainer: Trainer, pl_module: Module) -> None:
        """Log the mean loss per answer token since the last record."""
        module = _answer_module(pl_module)
        if module.device.type == "cpu":
            self.check(module)
        if trainer.global_step % self.every == 0 or trainer.global_step == module.total_steps:
            self._log_training(trainer, module)

    def on_validation_start(self, trainer: Trainer, pl_module: Module) -> None:
        self.check(_answer_module(pl_module))

    def on_validation_end(self, trainer: Trainer, pl_module: Module) -> None:
        value = _answer_module(pl_module).val_loss
        if value is not None:
            self._emit(trainer, "val_loss", {"val_loss": value, "epoch": epoch_progress(trainer)})

    def check(self, module: AnswerModule) -> None:
        """Raise TrainingError if the loss since the last record is not finite."""
        total = module.window.total()
        if not math.isfinite(total):
            raise non_finite("training loss", total, module.global_step)

    def _log_training(self, trainer: Trainer, module: AnswerModule) -> None:
        loss = module.window.mean_over_ranks(module)
        if not math.isfinite(loss):
            raise non_finite("training loss", loss, module.global_step)
        module.window.clear()
        values = {"train_loss": loss, "epoch": epoch_progress(trainer)}
        if module.lr_used is not None:
            values["lr"] = module.lr_used
        if module.grad_norm is not None:
            values["grad_norm"] = float(module.grad_norm)
        module.train_loss = loss
        self._emit(trainer, "train_loss", values)

    def _emit(self, trainer: Trainer, kind: str, values: dict[str, float]) -> None:
        step = trainer.global_step
        if not trainer.is_global_zero or self.logged.get(kind, -1) >= step:
            return
        self.logged[kind] = step
        for logger in trainer.loggers:
            logger.log_metrics(values, step=step)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Module, checkpoint: State) -> None:
        """Store the sums that are not logged yet; a state whose loss is not finite never is."""
        module = _answer_module(pl_module)
        self.check(module)
        nll, tokens = module.window.sum_over_ranks(module)
        checkpoint["sizewise_window"] = {"nll": nll, "tokens": tokens}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: Module, checkpoint: State) -> None:
        window = _answer_module(pl_module).window
        window.clear()
        if trainer.is_global_zero:
            window.nll = checkpoint["sizewise_window"]["nll"]
            window.tokens = checkpoint["sizewise_window"]["tokens"]


def _answer_module(module: Module) -> AnswerModule:
    if not isinstance(module, AnswerModule):
        raise TypeError(f"{type(module).__name__} is not an AnswerModule")
    return module


REFRESH_SECONDS = 0.25


class FitProgress(StepCallback):
    """Shows steps, losses and the time left: a bar on a terminal (``bar``), lines in the log.

    ``until``: the step after which the fit stops for now, where it is not the last.
    """

    def __init__(self, total_steps: int, bar: bool, until: int | None = None) -> None:
        self.total_steps = total_steps
        self.bar = bar
        self.until = until or total_steps
        self._tell: Tell = lambda *_: None
        self._progress: Progress | None = None
        self._drawn = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: Module) -> None:
        if trainer.is_global_zero:
            self._tell = stage(TRAINING, self.until, trainer.global_step)
        if self.bar and trainer.is_global_zero and sys.stderr.isatty():
            self._progress = Progress(
                TextColumn("train"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
                TextColumn("{task.description}"), TimeElapsedColumn(), TimeRemainingColumn(),
                console=Console(stderr=True), auto_refresh=False, transient=True,
            )  # fmt: skip
            self._progress.add_task("", total=self.total_steps, completed=trainer.global_step)
            self._progress.start()

    def on_step_end(self, trainer: Trainer, pl_module: Module) -> None:
        self._tell(trainer.global_step, _losses(pl_module))
        if self._progress is None:
            return
        now = time.monotonic()
        if now - self._drawn < REFRESH_SECONDS and trainer.global_step < self.total_steps:
            return
        self._drawn = now
        task = self._progress.task_ids[0]
        self._progress.update(
            task, completed=trainer.global_step, description=_losses(pl_module), refresh=True
        )

    def on_validation_end(self, trainer: Trainer, pl_module: Module) -> None:
        if trainer.is_global_zero:
            log.info(
                "step %d/%d  epoch %.2f  %s",
                trainer.global_step, self.total_steps, epoch_progress(trainer), _losses(pl_module),
            )  # fmt: skip

    def on_train_end(self, trainer: Trainer, pl_module: Module) -> None:
        self.close()

    def on_exception(self, trainer: Trainer, pl_module: Module, exception: BaseException) -> None:
        self.close()

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _losses(module: Module) -> str:
    if not isinstance(module, AnswerModule):
        return ""
    parts = [("train", module.train_loss), ("validation", module.val_loss)]
    return "  ".join(f"{name} {value:.4f}" for name, value in parts if value is not None)


class PruningCallback(Callback):
    """Reports the validation loss; the reporter raises ``TrialPruned`` to give the trial up."""

    def __init__(self, reporter: PruningReporter) -> None:
        self.reporter = reporter

    def on_validation_end(self, trainer: Trainer, pl_module: Module) -> None:
        if isinstance(pl_module, AnswerModule) and pl_module.val_loss is not None:
            self.reporter.report(trainer.global_step, pl_module.val_loss)
