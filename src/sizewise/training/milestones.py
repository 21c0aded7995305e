"""When a fit validates and when it ends, counted in optimiser steps."""

from __future__ import annotations

from dataclasses import dataclass

from pytorch_lightning import LightningModule as Module
from pytorch_lightning import Trainer

from sizewise.training.lightning_internals import State, StepCallback, run_validation
from sizewise.training.meter import FitMeter
from sizewise.training.random_state import capture, restore


@dataclass(eq=False)
class Milestones(StepCallback):
    """Validates at optimiser-step boundaries and stops at the last step.

    Random states are the same after a validation as before it, so that how often one validates
    does not change what is trained.

    ``every`` counts optimiser steps (None: at the end of each epoch); ``enabled``: there is
    something to validate on; ``validated_step`` is the step after which that was last done.
    """

    total_steps: int
    every: int | None
    at_start: bool
    enabled: bool
    meter: FitMeter
    validated_step: int | None = None
    _stopped: bool = False

    def on_train_start(self, trainer: Trainer, pl_module: Module) -> None:
        """Validate the untrained adapter, or stay stopped where an earlier process stopped."""
        if self._stopped:
            trainer.should_stop = True
        elif trainer.global_step == 0 and self.at_start and self.enabled:
            self._validate(trainer, pl_module)

    def on_step_end(self, trainer: Trainer, pl_module: Module) -> None:
        if self._due(trainer) and self.enabled:
            self._validate(trainer, pl_module)
        if trainer.global_step >= self.total_steps:
            trainer.should_stop = True

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
        """Store whether training has been stopped, which Lightning forgets."""
        checkpoint["sizewise_stopped"] = bool(trainer.should_stop)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: Module, checkpoint: State) -> None:
        self._stopped = checkpoint["sizewise_stopped"]
