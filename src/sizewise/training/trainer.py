"""Lightning's Trainer for one fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.environments import LightningEnvironment, SLURMEnvironment

from sizewise.config.training import TrainerConfig
from sizewise.models.dtypes import lightning_precision, resolve_precision
from sizewise.runtime import resolve_device
from sizewise.training.checkpoint import AtomicCheckpointIO
from sizewise.training.lightning_internals import NEVER
from sizewise.training.sharding import ShardedStrategy

RENDEZVOUS = timedelta(days=1)


def build_trainer(
    trainer: TrainerConfig,
    epochs: int,
    accumulate: int,
    callbacks: Sequence[pl.Callback],
    loggers: Sequence[Logger],
    run_dir: Path,
) -> pl.Trainer:
    """Build a Trainer that writes nothing by itself and validates only when ``Milestones`` says.

    ``epochs``: passes over the training data at most; ``accumulate``: micro-batches per step.
    """
    device = resolve_device(trainer)
    built = pl.Trainer(
        accelerator={"cuda": "gpu"}.get(device.type, device.type),
        devices=_devices(trainer, device),
        num_nodes=trainer.num_nodes,
        strategy=_strategy(trainer),
        precision=lightning_precision(resolve_precision(trainer, device)),
        max_epochs=epochs,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=trainer.gradient_clip,
        deterministic=trainer.deterministic or None,
        check_val_every_n_epoch=NEVER,
        num_sanity_val_steps=0,
        logger=list(loggers) or False,
        callbacks=list(callbacks),
        plugins=_plugins(trainer),
        default_root_dir=str(run_dir),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_autolog_hparams=False,
        use_distributed_sampler=False,
        inference_mode=False,
    )
    _let_ranks_wait(built.strategy)
    # Signals are StopRequest's: Lightning would leave in the midst of an accumulation, unsaved.
    built._signal_connector.register_signal_handlers = lambda: None
    return built


def _let_ranks_wait(strategy: Any) -> None:
    """Let processes that something else began (srun) wait while the first one scores the base."""
    if hasattr(strategy, "_timeout"):  # of process groups; half an hour by default
        strategy._timeout = RENDEZVOUS


def _strategy(trainer: TrainerConfig) -> Any:
    return ShardedStrategy(world_size(trainer), RENDEZVOUS) if trainer.shards else trainer.strategy


def world_size(trainer: TrainerConfig) -> int:
    return trainer.devices * trainer.num_nodes


def _devices(trainer: TrainerConfig, device: torch.device) -> Any:
    single = world_size(trainer) == 1 and device.type == "cuda"
    return [device.index or 0] if single else trainer.devices


def _plugins(trainer: TrainerConfig) -> list[Any]:
    plugins: list[Any] = [AtomicCheckpointIO()]
    if world_size(trainer) == 1:
        plugins.append(LightningEnvironment())
    elif SLURMEnvironment.detect():
        plugins.append(SLURMEnvironment(auto_requeue=False))
    return plugins


@contextmanager
def torch_settings_kept() -> Iterator[None]:
    """Undo inside-the-block changes of torch's process-wide settings (they outlive a Trainer)."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
