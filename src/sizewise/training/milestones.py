"""When a fit validates and when it ends, counted in optimiser steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pytorch_lightning import LightningModule as Module
from pytorch_lightning import Trainer
from torch import Tensor, nn

from sizewise.training.lightning_internals import State, StepCallback, run_validation
from sizewise.training.meter import FitMeter
from sizewise.training.module import AnswerModule
from sizewise.training.random_state import capture, restore
from sizewise.training.trainable import load_trainable, snapshot

RUNG = "sizewise_rung"
# Of a rung's steps, the last share whose weights are averaged, and how many of them at most.
WINDOW = 0.6
SAMPLES = 16


@dataclass(eq=False)
class LatestWeights:
    """The mean of the trainable weights over the last steps before a rung.

    A high learning rate is still noisy there, which its schedule would have cooled down by the end:
    the mean of the latest weights (LAWA: Kaddour 2022, arXiv:2209.14981) comes near to a
    cooled-down model without any training (Sandler et al. 2023, arXiv:2301.02312; Hägele et al.
    2024, arXiv:2405.18392). In float32 and host memory; at most ``SAMPLES`` steps count, evenly
    spaced, the last one among them.
    """

    sums: dict[str, Tensor] = field(default_factory=dict)
    count: int = 0

    def add(self, model: nn.Module) -> None:
        for name, weight in snapshot(model).items():
            self.sums[name] = self.sums[name] + weight if name in self.sums else weight.float()
        self.count += 1

    @contextmanager
    def loaded(self, model: nn.Module) -> Iterator[None]:
        """Put the mean into the model for a while."""
        own = snapshot(model)
        load_trainable(model, {n: s / self.count for n, s in self.sums.items()}, "The mean")
        try:
            yield
        finally:
            load_trainable(model, own, "The weights before it")


def is_sampled(step: int, rung: int) -> bool:
    """Whether the weights after a step are part of the mean at a rung."""
    window = max(1, round(WINDOW * rung))
    return rung - window < step <= rung and (rung - step) % -(-window // SAMPLES) == 0


@dataclass(eq=False)
class Milestones(StepCallback):
    """Validates at optimiser-step boundaries and stops at the last step.

    Random states are the same after a validation as before it, so that how often one validates
    does not change what is trained.

    ``every`` counts optimiser steps (None: at the end of each epoch); ``enabled``: there is
    something to validate on; ``validated_step`` is the step after which that was last done.

    ``rung``: the step after which the fit is to stop for now, and ``rung_loss`` the validation loss
    of the ``latest`` weights there. No other callback sees that validation: a fit that goes on is
    the one that was never stopped, bit for bit.
    """

    total_steps: int
    every: int | None
    at_start: bool
    enabled: bool
    meter: FitMeter
    rung: int | None = None
    rung_loss: float | None = None
    validated_step: int | None = None
    latest: LatestWeights = field(default_factory=LatestWeights)
    _stopped: bool = False

    def on_train_start(self, trainer: Trainer, pl_module: Module) -> None:
        """Validate the untrained adapter, or stay stopped where an earlier process stopped."""
        if self._stopped:
            trainer.should_stop = True
        elif self.rung is not None and trainer.global_step >= self.rung:
            # Killed there before it was said, or resumed further on: it is compared as it is.
            self._stop_at_rung(trainer, pl_module)
        elif trainer.global_step == 0 and self.at_start and self.enabled:
            self._validate_untrained(trainer, pl_module)

    def _validate_untrained(self, trainer: Trainer, pl_module: Module) -> None:
        """Validate before the first step, or only announce what another job has found.

        Processes of one fit might not find the same in a cache: there all of them validate.
        """
        assert isinstance(pl_module, AnswerModule)
        kept = pl_module.untrained if trainer.world_size == 1 else None
        pl_module.known_loss = known = kept.read() if kept is not None else None
        try:
            self._validate(trainer, pl_module)
        finally:
            pl_module.known_loss = None
        if kept is not None and known is None and pl_module.val_loss is not None:
            kept.keep(pl_module.val_loss)

    def on_step_end(self, trainer: Trainer, pl_module: Module) -> None:
        if self._due(trainer) and self.enabled:
            self._validate(trainer, pl_module)
        if trainer.global_step >= self.total_steps:
            trainer.should_stop = True
        self._stopped = trainer.should_stop
        if self.rung is not None and is_sampled(trainer.global_step, self.rung):
            self.latest.add(pl_module.model)
        if trainer.global_step == self.rung:
            self._stop_at_rung(trainer, pl_module)

    def _stop_at_rung(self, trainer: Trainer, pl_module: Module) -> None:
        if self.rung_loss is None:
            self.rung_loss = self._loss(trainer, pl_module)
        trainer.should_stop = True

    def _loss(self, trainer: Trainer, pl_module: Module) -> float | None:
        """Return the validation loss of the latest weights; of those of this step without any."""
        assert isinstance(pl_module, AnswerModule)
        before = pl_module.val_loss
        if not self.latest.sums:  # a fit that already stood here, on its way to another rung
            self.latest = LatestWeights()
            self.latest.add(pl_module.model)
        with self.latest.loaded(pl_module.model):
            self._validate(trainer, pl_module, unseen=True)
        loss = pl_module.val_loss
        pl_module.val_loss = before
        return loss

    def _due(self, trainer: Trainer) -> bool:
        step = trainer.global_step
        if step >= self.total_steps:
            return True
        return trainer.is_last_batch if self.every is None else step % self.every == 0

    def _validate(self, trainer: Trainer, pl_module: Module, unseen: bool = False) -> None:
        self.meter.pause()
        state = capture(pl_module.device)
        run_validation(trainer, unseen)
        restore(state, pl_module.device)
        if not unseen:
            self.validated_step = trainer.global_step

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Module, checkpoint: State) -> None:
        """Store whether training has been stopped for good, which Lightning forgets."""
        at_rung = trainer.global_step == self.rung
        checkpoint["sizewise_stopped"] = self._stopped if at_rung else bool(trainer.should_stop)
        if self.rung is not None:
            latest = {"sums": {} if at_rung else self.latest.sums, "count": self.latest.count}
            checkpoint[RUNG] = {"step": self.rung, "loss": self.rung_loss, **latest}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: Module, checkpoint: State) -> None:
        """Go on with the mean of the same rung; that of another one begins anew.

        The steps of the former have other distances, and their sums cannot be taken apart.
        """
        self._stopped = checkpoint["sizewise_stopped"]
        stored = checkpoint.get(RUNG) or {}
        if stored.get("step") == self.rung:
            self.rung_loss = stored.get("loss")
            self.latest = LatestWeights(stored.get("sums", {}), stored.get("count", 0))
