"""Progress of a fit: a bar on a terminal, single lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sizewise.training.loop import StepCallback, epoch_progress
from sizewise.training.module import AnswerModule

log = logging.getLogger(__name__)
REFRESH_SECONDS = 0.25


class FitProgress(StepCallback):
    """Shows steps, losses and the time left.

    Args:
        total_steps: optimiser steps of the whole fit.
        bar: whether to draw a bar when standard error is a terminal; a line per validation is
            written to the log in any case.
    """

    def __init__(self, total_steps: int, bar: bool) -> None:
        self.total_steps = total_steps
        self.bar = bar
        self._progress: Progress | None = None
        self._drawn = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar."""
        if self.bar and trainer.is_global_zero and sys.stderr.isatty():
            self._progress = Progress(
                TextColumn("train"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
                TextColumn("{task.description}"), TimeElapsedColumn(), TimeRemainingColumn(),
                console=Console(stderr=True), auto_refresh=False, transient=True,
            )  # fmt: skip
            self._progress.add_task("", total=self.total_steps, completed=trainer.global_step)
            self._progress.start()

    def on_step_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw a few times a second."""
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

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write one line to the log."""
        if trainer.is_global_zero:
            log.info(
                "step %d/%d  epoch %.2f  %s",
                trainer.global_step, self.total_steps, epoch_progress(trainer), _losses(pl_module),
            )  # fmt: skip

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        self.close()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Close the bar."""
        self.close()

    def close(self) -> None:
        """Give the terminal back."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _losses(module: pl.LightningModule) -> str:
    if not isinstance(module, AnswerModule):
        return ""
    parts = [("train", module.train_loss), ("validation", module.val_loss)]
    return "  ".join(f"{name} {value:.4f}" for name, value in parts if value is not None)
