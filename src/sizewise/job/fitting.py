"""The training of a job: adapter on the base, module, batches, fit."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sizewise.config import RunConfig
from sizewise.config.training import SELECTIVE
from sizewise.data.batches.collate import collate_classes, collate_seq2seq, collate_training
from sizewise.data.batches.datamodule import SizewiseDataModule
from sizewise.files import read_json, sealed, unsealed, write_json
from sizewise.job.bases import storage_of
from sizewise.job.data import Task
from sizewise.job.dry_run import STOP_AFTER, LeftInTheMiddleError, StopOnce
from sizewise.job.submit import submitted_stop
from sizewise.models.adapter.attach import attach_adapter, enable_checkpointing
from sizewise.models.adapter.wrapping import is_adapted
from sizewise.models.base import for_device, load_base
from sizewise.models.dtypes import resolve_precision
from sizewise.record.directories import RunDir
from sizewise.record.fit import FitResult
from sizewise.record.stops import FitStopped
from sizewise.runtime import resolve_device, seed_everything
from sizewise.training.fit import fit_job
from sizewise.training.optimizer import make_optimizer_factory, make_scheduler_factory
from sizewise.training.preflight import make_callbacks

if TYPE_CHECKING:
    from peft import PeftModel
    from pytorch_lightning import Callback
    from pytorch_lightning.loggers import Logger
    from transformers import PreTrainedModel

    from sizewise.training.module import AnswerModule, KeptLoss


log = logging.getLogger(__name__)


def train(
    cfg: RunConfig,
    base: PreTrainedModel,
    task: Task,
    padding: int,
    loggers: Sequence[Logger],
    run_dir: Path,
    untrained: KeptLoss | None = None,
) -> tuple[PreTrainedModel | PeftModel, FitResult]:
    """Attach the adapter and fit it; return the model with its best weights, and the record.

    A fully trained model comes back in the base's own dtype, as it will be loaded again.
    ``padding``: the id to pad with. ``untrained``: keeps the validation loss before the first step.
    """
    seed_everything(cfg.seed)
    dtype = base.dtype
    model = attach_adapter(base, cfg.lora, storage_of(cfg)[0], cfg.seed)
    if cfg.trainer.gradient_checkpointing:
        enable_checkpointing(model, cfg.trainer.gradient_checkpointing == SELECTIVE)
    module = build_module(cfg, model)
    module.untrained = untrained
    data = batches(cfg, task, padding)
    if cfg.dry_run:
        stop_once(cfg, module, data, run_dir)
    stop_at, chosen = submitted_stop(run_dir), callbacks(cfg, run_dir)
    try:
        fit = fit_job(module, data, cfg.trainer, chosen, loggers, run_dir, cfg.seed, stop_at)
    except FitStopped:
        if is_adapted(model) and not cfg.trainer.shards:
            model.unload()  # the base is as it was, for the next job
        raise
    if cfg.lora.method == "full":
        model = model.to(dtype)
    return model.eval(), fit


@dataclass(frozen=True)
class UntrainedLoss:
    """The validation loss of a base under an adapter that does nothing yet, in the cache."""

    path: Path

    @classmethod
    def of(cls, cache: Path, key: str) -> UntrainedLoss:
        """Name it by what it depends on."""
        return cls(cache / "untrained" / key[:2] / f"{key}.json")

    def read(self) -> float | None:
        """Return what another job has computed; None where there is none, or it is damaged."""
        try:
            loss = unsealed(read_json(self.path) or {})["val_loss"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return loss if isinstance(loss, float) and math.isfinite(loss) else None

    def keep(self, loss: float) -> None:
        """Store it; on a full disk the next job computes it again."""
        try:
            write_json(self.path, sealed({"val_loss": loss}))
        except OSError as error:
            log.warning("%s cannot be written (%s): going on without.", self.path, error)


def train_divided(
    cfg: RunConfig, task: Task, padding: int, loggers: Sequence[Logger], run_dir: Path
) -> FitResult:
    """Fit an adapter on a base that is divided among this process and others; all call this.

    The base is read into host memory, from where each process's device gets its share, block by
    block. What is learnt is in ``run_dir``: the model is of no use to a process on its own.
    """
    model, quantization = for_device(*storage_of(cfg), resolve_device(cfg.trainer))
    base = load_base(model, quantization, torch.device("cpu"), packs=True)
    return train(cfg, base, task, padding, loggers, run_dir)[1]


def stop_once(
    cfg: RunConfig, module: AnswerModule, data: SizewiseDataModule, run_dir: Path
) -> None:
    """Begin the fit and leave it in its middle, so that the fit proper has to resume.

    Nothing is done where a fit has begun already.
    """
    if RunDir(run_dir).fit.is_file() or RunDir(run_dir).checkpoints.is_dir():
        return
    stop: list[Callback] = [*callbacks(cfg, run_dir), StopOnce()]
    try:
        fit_job(module, data, cfg.trainer, stop, (), run_dir, cfg.seed)
    except LeftInTheMiddleError:
        log.info("Dry run: stopped after %d step on purpose; it goes on from there.", STOP_AFTER)


def callbacks(cfg: RunConfig, run_dir: Path) -> list[Callback]:
    """Build the configured callbacks, and the one that reports to a search that may give up."""
    chosen = make_callbacks(cfg.callbacks)
    from sizewise.record.study import PruningReporter

    reporter = PruningReporter.for_run(run_dir)
    if reporter is not None:
        from sizewise.training.recorder import PruningCallback

        chosen.append(PruningCallback(reporter))
    return chosen


def build_module(cfg: RunConfig, model: PreTrainedModel | PeftModel) -> AnswerModule:
    """Return the Lightning module of a job around its model."""
    from sizewise.training.module import CausalModule, EncoderModule, Seq2SeqModule

    kinds: dict[str, type[AnswerModule]] = {"seq2seq": Seq2SeqModule, "encoder": EncoderModule}
    kind = kinds.get(cfg.model.family, CausalModule)
    precision = resolve_precision(cfg.trainer, resolve_device(cfg.trainer))
    return kind(
        model,
        make_optimizer_factory(cfg.optimizer, allow_fused=precision != "16-mixed"),
        make_scheduler_factory(cfg.scheduler),
        cfg.trainer.label_smoothing,
    )


def batches(cfg: RunConfig, task: Task, padding: int) -> SizewiseDataModule:
    """Training and validation batches of a job; ``padding``: the id to pad with."""
    trainer, collates = cfg.trainer, {"seq2seq": collate_seq2seq, "encoder": collate_classes}
    return SizewiseDataModule(
        train=task.encoded["train"],
        validation=(task.held_back or task.encoded["validation"]).answered,
        batch_size=trainer.batch_size,
        accumulate=trainer.accumulate,
        eval_batch_size=cfg.evaluation.batch_size or trainer.batch_size,
        length_grouping=trainer.length_grouping,
        seed=cfg.seed,
        pad_token_id=padding,
        collate=collates.get(cfg.model.family, collate_training),
    )
