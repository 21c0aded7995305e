"""The fit of one job: resumed where it stopped, in smaller batches where memory is short."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Sequence, Sized
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger
from safetensors import SafetensorError

from sizewise.config.training import TrainerConfig
from sizewise.data.batches.plan import count_batches, fit_plan
from sizewise.devices import free_memory, is_out_of_memory
from sizewise.errors import DivergedError, OutOfMemoryError, TrainingError
from sizewise.models.dtypes import cast
from sizewise.record.directories import ADAPTER, RunDir
from sizewise.record.fit import FitResult, forget_fit, read_result, write_result
from sizewise.record.stops import FitStopped, Stop
from sizewise.runtime import quiet, seed_everything
from sizewise.training.checkpoint import (
    BatchShape,
    BestWeights,
    LastCheckpoint,
    read_best,
    read_checkpoint,
    rescaled,
    stored_shape,
    write_checkpoint,
)
from sizewise.training.interrupt import StopRequest
from sizewise.training.meter import FitMeter
from sizewise.training.milestones import Milestones
from sizewise.training.module import AnswerModule
from sizewise.training.random_state import RandomState
from sizewise.training.recorder import FitProgress, Recorder
from sizewise.training.seat import current_seat
from sizewise.training.sharding import is_sharded, leave_group
from sizewise.training.trainable import (
    load_exported,
    load_trainable,
    snapshot,
    with_tied_names,
)
from sizewise.training.trainer import build_trainer, torch_settings_kept, world_size

log = logging.getLogger(__name__)


def fit_job(
    module: AnswerModule,
    datamodule: TrainingData,
    trainer: TrainerConfig,
    callbacks: Sequence[pl.Callback],
    loggers: Sequence[Logger],
    run_dir: Path,
    seed: int,
    stop_at: float | None = None,
) -> FitResult:
    """Train ``module`` on ``datamodule``; leave its best weights loaded, in eval mode, and saved.

    They are saved under ``run_dir/adapter``. A fit that was interrupted goes on from
    ``run_dir/checkpoints/last.ckpt`` and ends with the same weights, bit for bit on a CPU; one that
    is done (``run_dir/fit.json``) is not repeated. When memory does not suffice, the micro-batch is
    made smaller at the same effective batch, and training goes on from the last saved state.

    Args:
        module: the Lightning module, its model on its device.
        loggers: trackers; the run's own ``metrics.jsonl`` is added if it is not among them.
        seed: of dropout and whatever else is random in training.
        stop_at: the share of the optimiser steps after which to stop for now, with the schedule of
            all of them (1: none, but a loss that is no number any more is a result as well).

    Raises:
        FitStopped: the fit is at ``stop_at``, or diverged or was stopped early on the way; the
            state is saved, so that it can go on or, stopped early, be finished.
        TrainingError: the loss is not finite, or the checkpoint belongs to another configuration.
        OutOfMemoryError: not even single examples fit.
        KeyboardInterrupt: the user asked to stop; the state is saved.
    """
    quiet()
    cast((p for p in module.model.parameters() if p.requires_grad), trainer)
    done = read_result(run_dir)
    if done is not None and _load_done(module, run_dir):
        module.eval()
        return done
    with torch_settings_kept():
        attempt = Attempt(module, datamodule, trainer, callbacks, loggers, run_dir, seed, stop_at)
        try:
            result = _train(attempt)
        except DivergedError as error:
            if stop_at is None:
                raise
            raise FitStopped(attempt.stopped(None, str(error))) from error
        except FitStopped as stopped:  # by a search, which knows nothing of the costs
            left = stopped.stop
            own = attempt.stopped(left.value)
            stopped.stop = replace(own, share=left.share, averaged=left.averaged, ended=left.ended)
            raise
        finally:
            leave_group()
            if (seat := current_seat()) is not None:
                seat.leave_passes()
    module.eval()
    return result


def _load_done(module: AnswerModule, run_dir: Path) -> bool:
    """Load the weights of a finished fit; one of an earlier version may be torn, and is removed."""
    try:
        load_exported(module.model, RunDir(run_dir).adapter)
    except (SafetensorError, OSError) as error:
        forget_fit(run_dir, str(error))
        return False
    return True


def _train(attempt: Attempt) -> FitResult:
    trainer = attempt.config
    wanted = BatchShape(trainer.batch_size, trainer.accumulate)
    shape, failed = stored_shape(attempt.run, wanted)
    while True:
        try:
            result = attempt.fit(shape, failed)
            break
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).splitlines()[0]
        # Outside the handler, so that the traceback no longer holds the failed step's tensors.
        failed = [*failed, shape.as_dict()]
        shape = _smaller(shape, failed, trainer, reason)
        _shrink(attempt, shape, failed)
    _export(attempt, result)
    return result


def _smaller(
    shape: BatchShape, failed: list[dict[str, int]], trainer: TrainerConfig, reason: str
) -> BatchShape:
    tried = ", ".join(str(entry["batch_size"]) for entry in failed)
    smaller = shape.smaller()
    if smaller is None or world_size(trainer) > 1:
        why = "one example at a time" if smaller is None else "several processes cannot retry"
        raise OutOfMemoryError(
            f"Training does not fit into memory. trainer.batch_size tried: {tried} ({why}). "
            "Try trainer.gradient_checkpointing=true, quantization=nf4, a smaller "
            f"dataset.max_length or another model. The library said: {reason}"
        )
    log.warning(
        "Out of memory at trainer.batch_size=%d: going on with %d, accumulated %d times (the same "
        "effective batch).",
        shape.batch_size, smaller.batch_size, smaller.accumulate,
    )  # fmt: skip
    return smaller


def _shrink(attempt: Attempt, shape: BatchShape, failed: list[dict[str, int]]) -> None:
    """Prepare the next attempt: the last saved state in the new shape, or the start."""
    attempt.module.zero_grad(set_to_none=True)
    attempt.release()
    free_memory()
    last = attempt.run.last_checkpoint
    if last.is_file():
        write_checkpoint(rescaled(read_checkpoint(last), shape, failed), last)
    else:
        attempt.rewind()


def _export(attempt: Attempt, result: FitResult) -> None:
    """Load the best weights, write the adapter and the record, then drop the checkpoint.

    The further processes of a distributed fit have nothing left to do.
    """
    from sizewise.models.adapter.attach import save_adapter

    if not attempt.is_first:
        return
    attempt.best.load_into(attempt.module)
    run, model = attempt.run, attempt.module.model
    best = read_best(run.best_weights)[1] if is_sharded(model) else None
    weights = None if best is None else with_tied_names(model, best)
    temporary, folder = run.path / f".{ADAPTER}.tmp", run.adapter
    for leftover in (temporary, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    save_adapter(model, temporary, weights)
    temporary.replace(folder)
    write_result(result, run.path)
    attempt.best.forget()
    if not attempt.config.keep_last_checkpoint:
        shutil.rmtree(run.checkpoints, ignore_errors=True)


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
        stop_at: float | None = None,
    ) -> None:
        self.module = module
        self.datamodule = datamodule
        self.config = trainer
        self.callbacks = callbacks
        self.loggers = with_metrics_file(loggers, run_dir)
        self.run = RunDir(run_dir)
        self.seed = seed
        self.stop_at = stop_at
        self.best = BestWeights(self.run.best_weights)
        self.is_first = True
        self._logged: dict[str, int] = {}
        self._initial = snapshot(module.model)
        self._callback_states = [deepcopy(callback.state_dict()) for callback in callbacks]
        self._trainer: pl.Trainer | None = None
        self._meter = FitMeter()

    def fit(self, shape: BatchShape, failed: list[dict[str, int]]) -> FitResult:
        """Fit with micro-batches of ``shape``, from ``last.ckpt`` if there is one."""
        self.datamodule.set_batch_shape(shape.batch_size, shape.accumulate)
        steps_per_epoch = self._steps_per_epoch()
        total, epochs = fit_plan(steps_per_epoch, self.config)
        self.module.total_steps = total
        resume = self._prepare()
        meter = self._meter = FitMeter()
        with StopRequest() as stop:
            config, validates = self.config, self._has_validation()
            rung = rung_step(total, self.stop_at, validates)
            milestones = Milestones(
                total, config.validate_every, config.validate_at_start, validates, meter, rung
            )
            last = LastCheckpoint(
                self.run.last_checkpoint, config.checkpoint_every, shape, failed, milestones, stop
            )
            callbacks = self._callbacks(total, meter, milestones, last)
            trainer = build_trainer(
                config, epochs, shape.accumulate, callbacks, self.loggers, self.run.path
            )
            self._fit(trainer, resume)
        if milestones.rung_loss is not None:
            averaged = milestones.latest.count
            raise FitStopped(replace(self.stopped(milestones.rung_loss), averaged=averaged))
        if rung is not None and self.best.loss is not None:  # stopped early on the way there
            raise FitStopped(replace(self.stopped(self.best.loss), ended=True))
        return self._result(total, steps_per_epoch, meter, shape, failed)

    def _steps_per_epoch(self) -> int:
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
        if self.run.last_checkpoint.is_file():
            self.best.recall()
            return str(self.run.last_checkpoint)
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
            *self.callbacks, milestones,
            FitProgress(total, self.config.progress_bar, milestones.rung), last,
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
            packed=meter.packed,
            **shape.as_dict(),
        )

    def stopped(self, value: float | None, reason: str = "") -> Stop:
        """Describe a fit that ends here, with a validation loss or, where it diverged, without."""
        tokens, answer_tokens = self._meter.tokens()
        return Stop(
            step=self._trainer.global_step if self._trainer is not None else 0,
            value=value,
            share=self.stop_at,
            of_steps=self.module.total_steps,
            seconds=self._meter.seconds,
            tokens=tokens,
            answer_tokens=answer_tokens,
            peak_bytes=self._meter.peak_bytes,
            reason=reason,
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


def rung_step(total: int, share: float | None, validates: bool) -> int | None:
    """Return the optimiser step at which a fit of ``total`` steps stops; None: at its end.

    Raises:
        TrainingError: there is nothing to compare it by.
    """
    if share is None or (step := max(1, round(share * total))) >= total:
        return None
    if not validates:
        raise TrainingError(
            "Candidates of a sweep are compared by the validation loss, and there are no "
            "validation examples. Raise dataset.split.validation, or leave sweep.tuning.lr_factors "
            "and sweep.halving.rungs empty."
        )
    return step
