"""The training of a job: adapter on the base, module, batches, fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate

from sizewise.config import RunConfig
from sizewise.data.collate import collate_seq2seq, collate_training
from sizewise.data.datamodule import SizewiseDataModule
from sizewise.evaluation.template import pad_id
from sizewise.job.tasks import Task
from sizewise.models.adapter import attach_adapter, enable_checkpointing
from sizewise.runtime import seed_everything
from sizewise.training.fit import fit_job
from sizewise.training.optimizer import make_optimizer_factory
from sizewise.training.result import FitResult
from sizewise.training.schedule import make_scheduler_factory

if TYPE_CHECKING:
    from pytorch_lightning import Callback
    from pytorch_lightning.loggers import Logger

    from sizewise.training.module import AnswerModule


def train(
    cfg: RunConfig, base: Any, task: Task, template: Any, loggers: Sequence[Logger], run_dir: Path
) -> tuple[Any, FitResult]:
    """Attach the adapter and fit it; return the model with its best weights, and the record."""
    seed_everything(cfg.seed)
    model = attach_adapter(base, cfg.lora, cfg.model, cfg.seed)
    if cfg.trainer.gradient_checkpointing:
        enable_checkpointing(model)
    module = _module(cfg, model)
    data = _batches(cfg, task, template)
    fit = fit_job(module, data, cfg.trainer, callbacks(cfg, run_dir), loggers, run_dir, cfg.seed)
    return model.eval(), fit


def callbacks(cfg: RunConfig, run_dir: Path) -> list[Callback]:
    """Build the configured callbacks, and the one that reports to a search that may give up."""
    chosen = [instantiate(node, _convert_="all") for node in cfg.callbacks.values() if node]
    from sizewise.sweep.pruning import PruningReporter

    reporter = PruningReporter.for_run(run_dir)
    if reporter is not None:
        from sizewise.training.pruning import PruningCallback

        chosen.append(PruningCallback(reporter))
    return chosen


def _module(cfg: RunConfig, model: Any) -> AnswerModule:
    from sizewise.training.causal import CausalModule
    from sizewise.training.seq2seq import Seq2SeqModule

    kind = Seq2SeqModule if cfg.model.family == "seq2seq" else CausalModule
    return kind(
        model,
        make_optimizer_factory(cfg.optimizer, allow_fused=cfg.trainer.precision != "16-mixed"),
        make_scheduler_factory(cfg.scheduler),
        cfg.trainer.label_smoothing,
    )


def _batches(cfg: RunConfig, task: Task, template: Any) -> SizewiseDataModule:
    trainer = cfg.trainer
    return SizewiseDataModule(
        train=task.encoded["train"],
        validation=task.encoded["validation"],
        batch_size=trainer.batch_size,
        accumulate=trainer.accumulate,
        eval_batch_size=cfg.evaluation.batch_size or trainer.batch_size,
        length_grouping=trainer.length_grouping,
        seed=cfg.seed,
        pad_token_id=pad_id(template),
        collate=collate_seq2seq if cfg.model.family == "seq2seq" else collate_training,
    )
