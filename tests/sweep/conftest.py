"""Jobs of a sweep without Hydra, and commands with it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.commands import begin, printed
from tests.training.jobs import exit_code

from sizewise.config import DatasetConfig, ModelConfig, OptimizerConfig, RunConfig, SourceConfig
from sizewise.job.submit import Job, submit
from sizewise.record.identity import run_identity
from sizewise.sweep.launch.backend import LaunchOptions
from sizewise.sweep.launch.local_launcher import LocalBackend

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])

Command = Callable[..., "subprocess.CompletedProcess[str]"]
Submit = Callable[..., Job]


def job_config(seed: int = 1, model: str = "tiny") -> dict[str, Any]:
    return asdict(
        RunConfig(
            seed=seed,
            model=ModelConfig(name=model, path=f"embedded:{model}"),
            dataset=DatasetConfig(
                name="toy",
                prompt="{q}",
                answer="{a}",
                primary="icd10/exact",
                source=SourceConfig(kind="embedded", path="toy"),
            ),
            optimizer=OptimizerConfig(target="torch.optim.AdamW"),
        )
    )


@pytest.fixture
def submitted(tmp_path: Path) -> Submit:
    """Submit a fake job with a seed and return it."""

    def make(seed: int = 1, model: str = "tiny", function: str = "sweep.fake:job") -> Job:
        config = job_config(seed, model)
        identity = run_identity(config)
        job = Job((f"seed={seed}",), config, identity, tmp_path / identity.slug, function)
        submit(job)
        return job

    return make


def run_local(
    jobs: list[Job], folder: Path, retries: int = 0, fail_fast: bool = False, **settings: Any
) -> None:
    """Run jobs in a pool of workers that ends with them."""
    with closing(LocalBackend(**settings)) as backend:
        backend.run(jobs, LaunchOptions(folder, retries, fail_fast))


def command_line(tmp_path: Path, *overrides: str, script: str = "train.py") -> list[str]:
    return [
        sys.executable,
        str(ROOT / script),
        *overrides,
        f"paths.sweeps={tmp_path / 'sweeps'}",
        f"paths.outputs={tmp_path / 'outputs'}",
        "hydra.sweeper.job=sweep.fake:job",
        "hydra.sweeper.finish=sweep.fake:finish",
        "sweep.baselines=false",
    ]


@pytest.fixture
def train(tmp_path: Path) -> Command:
    """Run train.py with fake jobs, forked with everything imported; return what it printed."""

    def run(*overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
        _, *command = command_line(tmp_path, *overrides)
        process = begin(command, tmp_path, environment)
        return subprocess.CompletedProcess(command, exit_code(process), *printed(tmp_path))

    return run


def run_dirs(tmp_path: Path) -> list[Path]:
    return sorted(path.parent for path in (tmp_path / "sweeps").glob("*/*/job.json"))
