"""One attempt at a fit, with one batch shape."""

from __future__ import annotations

import math
from collections.abc import Sequence, Sized
from copy import deepcopy
from pathlib import Path
from typing import Any, Protocol

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger

from sizewise.config.training import TrainerConfig
from sizewise.errors import TrainingError
from sizewise.record.directories import RunDir
from sizewise.record.fit import FitResult
from sizewise.runtime import seed_everything
from sizewise.training.checkpoint import BEST, BatchShape, BestWeights, LastCheckpoint
from sizewise.training.interrupt import StopRequest
from sizewise.training.meter import FitMeter
from sizewise.training.milestones import Milestones
from sizewise.training.module import AnswerModule
from sizewise.training.random_state import RandomState
from sizewise.training.recorder import FitProgress, Recorder
from sizewise.training.trainable import load_trainable, snapshot
from sizewise.training.trainer import build_trainer, world_size


class TrainingData(Protocol):
    """What a fit asks of its data: a Lightning data module whose batch shape can change.

    ``train`` holds the training examples, which ``plan_epoch`` divides into micro-batches.
    """

    train: Sized

    def set_batch_shape(self, batch_size: int, accumulate: int) -> None: ...

    def train_dataloader(self) -> Any: ...
    def val_dataloader(self) -> Any: ...


class Attempt:
    """Builds callbacks and Trainer, fits, and sums up; the first process (``is_first``) writes."""

    def __init__(
        self,
        module: AnswerModule,
        datamodule: TrainingData,
        trainer: TrainerConfig,
        callbacks: Sequence[pl.Callback],
        loggers: Sequence[Logger],
        run_dir: Path,
        seed: int,
    ) -> None:
        self.module = module
        self.datamodule = datamodule
        self.config = trainer
        self.callbacks = callbacks
        self.loggers = with_metrics_file(loggers, run_dir)
        self.run_dir = run_dir
        self.seed = seed
        self.last = RunDir(run_dir).last_checkpoint
        self.best = BestWeights(self.last.with_name(BEST))
        self.is_first = True
        self._logged: dict[str, int] = {}
        self._initial = snapshot(module.model)
        self._callback_states = [deepcopy(callback.state_dict()) for callback in callbacks]
        self._trainer: pl.Trainer | None = None

    def run(self, shape: BatchShape, failed: list[dict[str, int]]) -> FitResult:
        """Fit with micro-batches of ``shape``, from ``last.ckpt`` if there is one."""
        self.datamodule.set_batch_shape(shape.batch_size, shape.accumulate)
        steps_per_epoch = self._steps_per_epoch()
        total, epochs = fit_plan(steps_per_epoch, self.config)
        self.module.total_steps = total
        resume = self._prepare()
        meter = FitMeter()
        with StopRequest() as stop:
            config, validates = self.config, self._has_validation()
            milestones = Milestones(
                total, config.validate_every, config.validate_at_start, validates, meter
            )
            every = config.checkpoint_every
            last = LastCheckpoint(self.last, every, shape, failed, milestones, stop)
            callbacks = self._callbacks(total, meter, milestones, last)
            self._fit(build_trainer(
                self.config, epochs, shape.accumulate, callbacks, self.loggers, self.run_dir
            ), resume)  # fmt: skip
        return self._result(total, steps_per_epoch, meter, shape, failed)

    def _steps_per_epoch(self) -> int:
        from sizewise.data.batches.plan import count_batches

        config = self.config
        batches = count_batches(len(self.datamodule.train), config.batch_size, world_size(config))
        if not batches:
            raise TrainingError(
                f"{len(self.datamodule.train)} training examples are too few for trainer.devices="
                f"{config.devices} and trainer.num_nodes={config.num_nodes}."
            )
        return math.ceil(batches / config.accumulate)

    def _prepare(self) -> str | None:
        """Seed, and choose between going on and starting afresh."""
        seed_everything(self.seed)
        if self.last.is_file():
            self.best.recall()
            return str(self.last)
        self.best.forget()
        return None

    def _callbacks(
        self, total: int, meter: FitMeter, milestones: Milestones, last: LastCheckpoint
    ) -> list[pl.Callback]:
        """Return all callbacks in the order in which Lightning calls each of their hooks.

        The order is the design: a step ends in one hook (``on_step_end``), in which it is logged,
        validated, shown and saved, so that a checkpoint holds the whole of it and a resumed fit
        repeats or leaves out none of it. A validation runs inside that hook, of ``Milestones``,
        and calls ``on_validation_end`` of this same list.

        1. ``RandomState`` restores before anything of a resumed fit draws a number.
        2. ``FitMeter`` starts its clock after that; validations and checkpoints stop it.
        3. ``Recorder`` refuses a loss that is no number before weights are validated, kept or
           saved, and hands values to the loggers before the checkpoint of the same step.
        4. ``BestWeights`` keeps what was validated before a callback of choice may stop the fit.
        5. The callbacks of choice (early stopping, pruning) see ``val_loss`` and ask to stop.
        6. ``Milestones`` validates and ends the fit, when 3 has checked and logged the step.
        7. ``FitProgress`` shows what the step, with its validation, came to.
        8. ``LastCheckpoint`` saves last, with the states of all the others; Lightning would put
           a ``Checkpoint`` there anyway.
        """
        return [
            RandomState(), meter, Recorder(self.config.log_every, self._logged), self.best,
            *self.callbacks, milestones, FitProgress(total, self.config.progress_bar), last,
        ]  # fmt: skip

    def _has_validation(self) -> bool:
        loader = self.datamodule.val_dataloader()
        return loader is not None and len(loader) > 0

    def _fit(self, trainer: pl.Trainer, resume: str | None) -> None:
        self._trainer = trainer
        self.is_first = trainer.is_global_zero
        try:
            trainer.fit(self.module, datamodule=self.datamodule, ckpt_path=resume)
        except SystemExit as left:
            # Lightning turns a KeyboardInterrupt into exit status 1.
            if trainer.interrupted:
                raise KeyboardInterrupt from left
            raise

    def _result(
        self,
        total: int,
        steps_per_epoch: int,
        meter: FitMeter,
        shape: BatchShape,
        failed: list[dict[str, int]],
    ) -> FitResult:
        steps = self._trainer.global_step if self._trainer is not None else 0
        tokens, answer_tokens = meter.tokens()
        return FitResult(
            steps=steps,
            epochs=steps / steps_per_epoch,
            best_step=self.best.step if self.best.step is not None else steps,
            best_val_loss=self.best.loss,
            seconds=meter.seconds,
            tokens=tokens,
            answer_tokens=answer_tokens,
            peak_bytes=meter.peak_bytes,
            stopped_early=steps < total,
            out_of_memory=failed,
            **shape.as_dict(),
        )

    def release(self) -> None:
        self._trainer = None
        self.module.trainer = None

    def rewind(self) -> None:
        """Put weights, callbacks and sums of losses back to where the fit began."""
        load_trainable(self.module.model, self._initial, "The start of this fit")
        for callback, state in zip(self.callbacks, self._callback_states, strict=True):
            callback.load_state_dict(deepcopy(state))
        self.module.forget_losses()


def with_metrics_file(loggers: Sequence[Logger], run_dir: Path) -> list[Logger]:
    """Return the loggers, with the run's own ``metrics.jsonl`` first."""
    from sizewise.tracking.metrics_file import MetricsFile

    if any(isinstance(logger, MetricsFile) for logger in loggers):
        return list(loggers)
    run_dir.mkdir(parents=True, exist_ok=True)
    return [MetricsFile(run_dir), *loggers]


def fit_plan(steps_per_epoch: int, trainer: TrainerConfig) -> tuple[int, int]:
    """Return (optimiser steps, passes over the data) that the limits allow."""
    limits: list[int] = []
    if trainer.max_epochs > 0:
        limits.append(trainer.max_epochs * steps_per_epoch)
    if trainer.max_steps > 0:
        limits.append(trainer.max_steps)
    total = min(limits)
    return total, -(-total // steps_per_epoch)
