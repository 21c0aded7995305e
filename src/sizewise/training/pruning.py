"""Tells a search how a trial is doing, after each validation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytorch_lightning as pl

from sizewise.training.module import AnswerModule

if TYPE_CHECKING:
    from sizewise.record.study import PruningReporter


class PruningCallback(pl.Callback):
    """Reports the validation loss; the reporter raises ``TrialPruned`` to give the trial up."""

    def __init__(self, reporter: PruningReporter) -> None:
        self.reporter = reporter

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the loss of the validation that has just ended."""
        if isinstance(pl_module, AnswerModule) and pl_module.val_loss is not None:
            self.reporter.report(trainer.global_step, pl_module.val_loss)
