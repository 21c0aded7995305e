"""Runs of experiments in this process: dry, tiny, and without a network."""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sizewise.commands.run import finish_alone
from sizewise.composition.compose import compose_run
from sizewise.job.run import run_job
from sizewise.record.outcome import Outcome

Run = Callable[..., Outcome]


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs of this folder lie; they share one cache."""
    return tmp_path_factory.mktemp("experiments")


@pytest.fixture(scope="session")
def run(root: Path) -> Run:
    """Compose a job from overrides and run it in a directory of the given name."""

    logging.getLogger("sizewise").setLevel(logging.INFO)

    def run_one(name: str, *overrides: str) -> Outcome:
        quiet = (
            "trainer.progress_bar=false",
            f"paths.cache={root / 'cache'}",
            f"paths.outputs={root}",
        )
        config = compose_run([*overrides, *quiet])
        outcome = run_job(config, root / name)
        finish_alone(config, root / name)
        gc.freeze()  # models are let go with a collection each, which leaves out what is there now
        return outcome

    return run_one


def rows_of(run_dir: Path, name: str) -> list[dict[str, Any]]:
    """Read a predictions file of a run."""
    lines = (run_dir / "predictions" / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]
