"""The fit of one job: resumed where it stopped, in smaller batches where memory is short."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger
from safetensors import SafetensorError

from sizewise.config.training import TrainerConfig
from sizewise.devices import free_memory, is_out_of_memory
from sizewise.errors import OutOfMemoryError
from sizewise.models.dtypes import cast
from sizewise.record.directories import ADAPTER, RunDir
from sizewise.record.fit import FitResult, forget_fit, read_result, write_result
from sizewise.runtime import quiet
from sizewise.training.attempt import Attempt, TrainingData
from sizewise.training.checkpoint import (
    LAST,
    BatchShape,
    read_checkpoint,
    rescaled,
    stored_shape,
    write_checkpoint,
)
from sizewise.training.module import AnswerModule
from sizewise.training.trainable import load_exported
from sizewise.training.trainer import torch_settings_kept, world_size

log = logging.getLogger(__name__)


def fit_job(
    module: AnswerModule,
    datamodule: TrainingData,
    trainer: TrainerConfig,
    callbacks: Sequence[pl.Callback],
    loggers: Sequence[Logger],
    run_dir: Path,
    seed: int,
) -> FitResult:
    """Train ``module`` on ``datamodule``; leave its best weights loaded, in eval mode, and saved.

    They are saved under ``run_dir/adapter``. A fit that was interrupted goes on from
    ``run_dir/checkpoints/last.ckpt`` and ends with the same weights, bit for bit on a CPU; one that
    is done (``run_dir/fit.json``) is not repeated. When memory does not suffice, the micro-batch is
    made smaller at the same effective batch, and training goes on from the last saved state.

    Args:
        module: the Lightning module, its model on its device.
        callbacks: further callbacks, such as early stopping.
        loggers: trackers; the run's own ``metrics.jsonl`` is added if it is not among them.
        seed: of dropout and whatever else is random in training.

    Raises:
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
        result = _train(module, datamodule, trainer, callbacks, loggers, run_dir, seed)
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


def _train(
    module: AnswerModule,
    datamodule: TrainingData,
    trainer: TrainerConfig,
    callbacks: Sequence[pl.Callback],
    loggers: Sequence[Logger],
    run_dir: Path,
    seed: int,
) -> FitResult:
    folder = RunDir(run_dir).checkpoints
    shape, failed = stored_shape(folder, BatchShape(trainer.batch_size, trainer.accumulate))
    attempt = Attempt(module, datamodule, trainer, callbacks, loggers, run_dir, seed)
    while True:
        try:
            result = attempt.run(shape, failed)
            break
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).splitlines()[0]
        # Outside the handler, so that the traceback no longer holds the failed step's tensors.
        failed = [*failed, shape.as_dict()]
        shape = _smaller(shape, failed, trainer, reason)
        _shrink(attempt, folder / LAST, shape, failed)
    _export(attempt, result, run_dir, trainer.keep_last_checkpoint)
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


def _shrink(attempt: Attempt, last: Path, shape: BatchShape, failed: list[dict[str, int]]) -> None:
    """Prepare the next attempt: the last saved state in the new shape, or the start."""
    attempt.module.zero_grad(set_to_none=True)
    attempt.release()
    free_memory()
    if last.is_file():
        write_checkpoint(rescaled(read_checkpoint(last), shape, failed), last)
    else:
        attempt.rewind()


def _export(attempt: Attempt, result: FitResult, run_dir: Path, keep_last: bool) -> None:
    """Load the best weights, write the adapter and the record, then drop the checkpoint.

    The further processes of a distributed fit have nothing left to do.
    """
    from sizewise.models.adapter.attach import save_adapter

    if not attempt.is_first:
        return
    attempt.best.load_into(attempt.module)
    temporary, folder = run_dir / f".{ADAPTER}.tmp", RunDir(run_dir).adapter
    for leftover in (temporary, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    save_adapter(attempt.module.model, temporary)
    temporary.replace(folder)
    write_result(result, run_dir)
    attempt.best.forget()
    if not keep_last:
        shutil.rmtree(RunDir(run_dir).checkpoints, ignore_errors=True)
