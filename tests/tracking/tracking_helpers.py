"""A tiny Lightning fit with loggers, and W&B's own tool to read offline runs back."""

from __future__ import annotations

import atexit
import json
import os
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytorch_lightning as pl
import torch
from tests.forks import Forks, forking
from torch.utils.data import DataLoader, TensorDataset


class TinyModule(pl.LightningModule):
    def __init__(self, die_at: int | None = None) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.die_at = die_at

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        if self.die_at is not None and self.global_step >= self.die_at:
            raise RuntimeError("planned failure")
        loss = self.layer(batch[0]).square().mean()
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("val/loss", self.layer(batch[0]).square().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(
    run_dir: Path,
    loggers: list[Any],
    callbacks: list[Any],
    die_at: int | None = None,
    checkpoint: Path | None = None,
) -> None:
    torch.manual_seed(0)
    data = DataLoader(TensorDataset(torch.ones(8, 1)), batch_size=1)
    trainer = pl.Trainer(
        max_epochs=3,
        logger=loggers,
        callbacks=callbacks,
        log_every_n_steps=2,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=run_dir,
        num_sanity_val_steps=0,
        enable_checkpointing=any(isinstance(c, pl.callbacks.Checkpoint) for c in callbacks),
    )
    ckpt = str(checkpoint) if checkpoint and checkpoint.exists() else None
    trainer.fit(TinyModule(die_at), data, data, ckpt_path=ckpt)


def offline_folders(run_dir: Path) -> list[Path]:
    return sorted((run_dir / "wandb").glob("offline-run-*"))


@cache
def tools() -> Forks:
    """The commands of W&B and of Trackio, whose folder is ``trackio`` where they run."""
    running = ExitStack()
    atexit.register(running.close)
    environment = {**os.environ, "TRACKIO_DIR": "trackio"}
    return running.enter_context(forking(["wandb.cli.cli", "trackio.cli"], environment))


def wandb_tool(*arguments: str) -> str:
    code = f"import sys; from wandb.cli.cli import cli; sys.argv = {['wandb', *arguments]}; cli()"
    with TemporaryDirectory() as folder:
        done = tools().run(code, Path(folder), os.environ)
    assert done.returncode == 0, done.stderr
    return done.stdout


def inspect_summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        wandb_tool("leet", "inspect", "--summary", "--json", str(folder))
    )
    return found


def inspect_records(folder: Path) -> list[dict[str, Any]]:
    text = wandb_tool("leet", "inspect", "--json", str(folder))
    return [json.loads(line) for line in text.splitlines()]


def history(folder: Path) -> list[dict[str, float]]:
    """What was logged while the run went on; the tables at its end are left out."""
    volatile = ("_runtime", "_timestamp", "per_example")
    items = [r["history"]["item"] for r in inspect_records(folder) if r["type"] == "history"]
    return [{k: v for k, v in item.items() if not k.startswith(volatile)} for item in items]
