"""What `job.preflight` asks of a fit: everything is built once, around nothing, before weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from sizewise.config import RunConfig
from sizewise.config.targets import build
from sizewise.errors import ConfigError, SizewiseError
from sizewise.models.dtypes import resolve_precision
from sizewise.runtime import quiet, resolve_device
from sizewise.training.optimizer import make_optimizer_factory, make_scheduler_factory
from sizewise.training.trainer import build_trainer, torch_settings_kept, world_size


def check_training(cfg: RunConfig) -> None:
    """Build optimiser, schedule, callbacks and Trainer of a job that trains, and drop them.

    Raises:
        ConfigError: one of them cannot be built; the message names the key.
    """
    if not cfg.lora.trains or cfg.stage == "evaluate":
        return
    quiet()
    check_division(cfg)
    device = resolve_device(cfg.trainer)
    if (cfg.lora.method, cfg.quantization.method, device.type) == ("dora", "int8", "cpu"):
        raise ConfigError(
            "lora=dora needs the weights of each layer, and those of quantization=int8 cannot be "
            "read back on the CPU. Choose quantization=nf4 or none, or lora=all_linear."
        )
    precision = resolve_precision(cfg.trainer, device)
    factory = make_optimizer_factory(cfg.optimizer, allow_fused=precision != "16-mixed")
    optimizer = factory([nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2))])
    make_scheduler_factory(cfg.scheduler)(optimizer, 1)
    callbacks = make_callbacks(cfg.callbacks)
    try:
        with torch_settings_kept():
            build_trainer(cfg.trainer, 1, 1, callbacks, (), Path())
    except SizewiseError:
        raise
    except Exception as error:
        trainer = cfg.trainer
        raise ConfigError(
            f"trainer.strategy={trainer.strategy} with trainer.devices={trainer.devices}, "
            f"trainer.accelerator={trainer.accelerator} and trainer.precision={trainer.precision} "
            f"cannot be set up: {' '.join(str(error).split())} trainer.strategy=auto suits one "
            "device, ddp several."
        ) from error


def check_division(cfg: RunConfig) -> None:
    """Refuse a training over several devices that cannot work, before anything is built for it.

    Raises:
        ConfigError: the message names the keys that contradict each other.
    """
    trainer, model = cfg.trainer, cfg.model
    if model.device_map is not None and not (trainer.shards or cfg.dry_run):
        raise ConfigError(
            f"model.device_map={model.device_map} spreads a base over several GPUs to answer; it "
            "trains nothing. Train with trainer.strategy=fsdp trainer.devices=2 (or more), leave "
            "model.device_map out, or choose lora=none."
        )
    if not trainer.shards:
        return
    precision = resolve_precision(trainer, resolve_device(trainer))
    refused = {
        f"trainer.devices={trainer.devices}, among which nothing can be divided": world_size(
            trainer
        ) == 1,
        f"lora={cfg.lora.method}, since adapters alone are trained so": not cfg.lora.is_adapter,
        "model.family=encoder, which is small enough for one device": model.family == "encoder",
        f"trainer.precision={precision}, whose loss scaling knows no shares": precision
        == "16-mixed",
        f"optimizer.target={cfg.optimizer.target}, which knows no shares": (
            not cfg.optimizer.target.startswith("torch.optim.")
        ),
    }  # fmt: skip
    for what, wrong in refused.items():
        if wrong:
            raise ConfigError(
                f"trainer.strategy=fsdp with {what}. Choose trainer.strategy=auto, or another "
                f"{what.partition('=')[0]}."
            )


def make_callbacks(nodes: Mapping[str, Any]) -> list[pl.Callback]:
    """Build the configured callbacks; only classes that are callbacks are ever called.

    Raises:
        ConfigError: one is no callback, holds another ``_target_``, does not take its arguments,
            or waits for a figure that no fit logs.
    """
    chosen = {key: node for key, node in nodes.items() if node}
    made = [build(node, f"callbacks.{key}", pl.Callback) for key, node in chosen.items()]
    ours = all(type(callback).__module__.startswith("pytorch_lightning") for callback in made)
    for key, callback in zip(chosen, made, strict=True):
        watched = getattr(callback, "monitor", None)
        if ours and watched not in (None, "val_loss"):
            raise ConfigError(
                f"callbacks.{key}.monitor={watched!r}: a fit logs val_loss only. Watch that."
            )
    return made
