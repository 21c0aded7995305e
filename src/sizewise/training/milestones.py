"""When a fit validates and when it ends, counted in optimiser steps."""

from __future__ import annotations

from dataclasses import dataclass

from pytorch_lightning import LightningModule as Module
from pytorch_lightning import Trainer

from sizewise.training.lightning_internals import State, StepCallback, run_validation
from sizewise.training.meter import FitMeter
from sizewise.training.module import AnswerModule
from sizewise.training.random_state import capture, restore

RUNG = "sizewise_rung"


@dataclass(eq=False)
class Milestones(StepCallback):
    """Validates at optimiser-step boundaries and stops at the last step.

    Random states are the same after a validation as before it, so that how often one validates
    does not change what is trained.

    ``every`` counts optimiser steps (None: at the end of each epoch); ``enabled``: there is
    something to validate on; ``validated_step`` is the step after which that was last done.

    ``rung``: the step after which the fit is to stop for now, and ``rung_loss`` the validation loss
    there. Where none is due at that step, no other callback sees the one that finds it: a fit that
    goes on is the one that was never stopped, bit for bit.
    """

    total_steps: int
    every: int | None
    at_start: bool
    enabled: bool
    meter: FitMeter
    rung: int | None = None
    rung_loss: float | None = None
    validated_step: int | None = None
    _stopped: bool = False

    def on_train_start(self, trainer: Trainer, pl_module: Module) -> None:
        """Validate the untrained adapter, or stay stopped where an earlier process stopped."""
        if self._stopped:
            trainer.should_stop = True
        elif trainer.global_step == self.rung:  # killed there, before it was said
            self._stop_at_rung(trainer, pl_module)
        elif trainer.global_step == 0 and self.at_start and self.enabled:
            self._validate(trainer, pl_module)

    def on_step_end(self, trainer: Trainer, pl_module: Module) -> None:
        if self._due(trainer) and self.enabled:
            self._validate(trainer, pl_module)
        if trainer.global_step >= self.total_steps:
            trainer.should_stop = True
        self._stopped = trainer.should_stop
        if trainer.global_step == self.rung:
            self._stop_at_rung(trainer, pl_module)

    def _stop_at_rung(self, trainer: Trainer, pl_module: Module) -> None:
        if self.rung_loss is None:
            self.rung_loss = self._loss(trainer, pl_module)
        trainer.should_stop = True

    def _loss(self, trainer: Trainer, pl_module: Module) -> float | None:
        """Return the validation loss of this step."""
        assert isinstance(pl_module, AnswerModule)
        before = pl_module.val_loss
        if self.validated_step != trainer.global_step:
            callbacks, validated = trainer.callbacks, self.validated_step
            trainer.callbacks = []  # type: ignore[attr-defined]
            try:
                self._validate(trainer, pl_module)
            finally:
                trainer.callbacks = callbacks  # type: ignore[attr-defined]
                self.validated_step = validated
        loss = pl_module.val_loss
        pl_module.val_loss = before
        return loss

    def _due(self, trainer: Trainer) -> bool:
        step = trainer.global_step
        if step >= self.total_steps:
            return True
        return trainer.is_last_batch if self.every is None else step % self.every == 0

    def _validate(self, trainer: Trainer, pl_module: Module) -> None:
        self.meter.pause()
        state = capture(pl_module.device)
        run_validation(trainer)
        restore(state, pl_module.device)
        self.validated_step = trainer.global_step

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Module, checkpoint: State) -> None:
        """Store whether training has been stopped for good, which Lightning forgets."""
        at_rung = trainer.global_step == self.rung
        checkpoint["sizewise_stopped"] = self._stopped if at_rung else bool(trainer.should_stop)
        if at_rung:
            checkpoint[RUNG] = {"step": self.rung, "loss": self.rung_loss}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: Module, checkpoint: State) -> None:
        self._stopped = checkpoint["sizewise_stopped"]
        stored = checkpoint.get(RUNG) or {}
        if stored.get("step") == self.rung:
            self.rung_loss = stored.get("loss")
