"""The smallest run that trains and scores."""

from __future__ import annotations

from pathlib import Path

from sizewise.composition.compose import compose_run
from sizewise.job.run import run_job
from sizewise.record.outcome import Outcome

SMALL = (
    "model=nano",
    "lora.r=4",
    "logger=none",
    "callbacks=none",
    "dataset.max_train=24",
    "dataset.max_validation=8",
    "dataset.max_test=8",
    "trainer.max_epochs=1",
    "trainer.progress_bar=false",
    "optimizer.lr=3e-3",
    "generation.max_new_tokens=8",
)


def run(root: Path, name: str, *overrides: str) -> Outcome:
    cfg = compose_run([*SMALL, f"paths.cache={root / 'cache'}", *overrides])
    return run_job(cfg, root / name)
