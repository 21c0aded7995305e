"""What of Lightning's loop has no public name: step boundaries and a validation at one."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Callback, Trainer
from pytorch_lightning import LightningModule as Module

NEVER = 10**9
State = dict[str, Any]  # a checkpoint


class StepCallback(Callback):
    """A callback that acts after optimiser steps; Lightning has a hook per micro-batch only."""

    def on_step_end(self, trainer: Trainer, pl_module: Module) -> None:
        """Act after an optimiser step; override it."""

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: Module,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if not trainer.fit_loop._should_accumulate():
            self.on_step_end(trainer, pl_module)


def epoch_progress(trainer: Trainer) -> float:
    """Return epochs trained so far, with the share of the current one."""
    done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
    batches = trainer.num_training_batches
    return trainer.current_epoch + (done / batches if batches else 0.0)


def run_validation(trainer: Trainer, unseen: bool = False) -> None:
    """Run the validation loop now, in the midst of a fit; ``unseen``: no callback hears of it.

    Lightning itself validates by counting micro-batches, which cannot express "every n optimiser
    steps" when an epoch ends with an incomplete accumulation; and a checkpoint that is saved just
    before its validation makes a resumed fit leave that validation out.
    """
    callbacks = trainer.callbacks
    connector = trainer._logger_connector
    first_iteration = connector._first_loop_iter
    trainer.validating = True
    trainer.lightning_module.zero_grad()
    trainer.callbacks = [] if unseen else callbacks
    # Of a fit that goes on, it would take its first batch for the one after the last it had seen.
    trainer.fit_loop.epoch_loop.val_loop.restarting = False
    try:
        trainer.fit_loop.epoch_loop.val_loop.run()
    finally:
        trainer.callbacks = callbacks
    trainer.training = True
    connector._first_loop_iter = first_iteration
