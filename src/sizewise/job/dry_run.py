"""A dry run: everything a job does, with a few examples, so that no typo costs GPU hours.

The option ``debug=dry_run`` chooses the tiny random base, the CPU and the few steps; this module
does what a file of values cannot: it limits every data set of the job, swaps an encoder that is
not on this machine for a stand-in, and stops the fit once on purpose to see it resumed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from sizewise.config import DatasetConfig, RunConfig
from sizewise.models.sources import PACKAGE, STAND_IN, is_cached, package_folder

log = logging.getLogger(__name__)
WARNING = (
    "Dry run: a tiny random model on a few examples. No figure of it says anything about the task."
)
TRAIN, HELD_OUT = 16, 8
STOP_AFTER = 1


class LeftInTheMiddleError(Exception):
    """Raised on purpose, to leave a fit in its middle."""


def dry_run_warnings(cfg: RunConfig) -> list[str]:
    """Return what every report has to say of a dry run; nothing for a real one."""
    if not cfg.dry_run:
        return []
    served = cfg.evaluation.engine == "server"
    return [
        WARNING,
        *(["No server was started or asked: transformers answered."] if served else []),
    ]


def few(dataset: DatasetConfig) -> DatasetConfig:
    """Limit a data set to a few examples; prompts are cut so that every tokenizer fits."""
    return replace(
        dataset,
        max_train=_smaller(dataset.max_train, TRAIN),
        max_validation=_smaller(dataset.max_validation, HELD_OUT),
        max_test=_smaller(dataset.max_test, HELD_OUT),
        truncate_prompt=True,
    )


def _smaller(given: int | None, limit: int) -> int:
    return limit if given is None else min(given, limit)


def reachable_metrics(nodes: Mapping[str, Any]) -> dict[str, Any]:
    """Return metric nodes whose encoders are on this machine, or a stand-in that counts words."""
    return {name: _with_encoder(name, node) for name, node in nodes.items()}


def _with_encoder(name: str, node: Any) -> Any:
    encoder = node.get("encoder") if isinstance(node, Mapping) else None
    if encoder is None or _usable(str(encoder)):
        return node
    log.warning(
        "metric.%s.encoder=%s is not on this machine (or sentence-transformers is not installed): "
        "a count of words stands in for it.",
        name,
        encoder,
    )
    return {**node, "encoder": STAND_IN}


def _usable(encoder: str) -> bool:
    if find_spec("sentence_transformers") is None:
        return False
    if encoder.startswith(PACKAGE):
        return package_folder(encoder) is not None
    local = Path(encoder).expanduser().is_dir()
    return local or is_cached(encoder, None, "modules.json", weights=True)


class StopOnce(pl.Callback):
    """Leaves the fit before the step after ``after``, when the checkpoint has been written.

    Args:
        after: optimiser steps to take first.
    """

    def __init__(self, after: int = STOP_AFTER) -> None:
        self.after = after

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Raise ``LeftInTheMiddleError`` once enough steps were taken."""
        if trainer.global_step >= self.after:
            raise LeftInTheMiddleError
