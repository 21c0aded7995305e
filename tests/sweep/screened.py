"""Sweeps whose candidates are screened, with real executions of jobs that do not train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sizewise.config import HalvingConfig, SweepConfig, TuningConfig
from sizewise.job.execute import execute
from sizewise.job.submit import Job
from sizewise.record.brackets import TuningRecord, read_tuning, write_tuning
from sizewise.record.outcome import read_outcome
from sizewise.sweep.brackets import tuning_record
from sizewise.sweep.launch.backend import More
from sizewise.sweep.plan import Plan, make_plan
from sizewise.sweep.stages import Means, run_stages

from .conftest import job_config

FACTORS = [0.1, 1.0, 10.0]
OWN = 1e-3
GRID = [(f"r={r}", f"seed={seed}") for r in (4, 16) for seed in (1, 2, 3)]


class Composer:
    """Understands seed=, r=, lora=, model=, dataset= and optimizer.lr= of a job.

    Its own learning rate is 0.001.
    """

    def compose(self, overrides: list[str]) -> dict[str, Any]:
        config = job_config()
        config["optimizer"]["lr"] = OWN
        for text in overrides:
            key, _, value = text.partition("=")
            if key == "optimizer.lr":
                config["optimizer"]["lr"] = float(value)
            elif key == "r":
                config["lora"]["r"] = int(value)
            elif key == "lora":
                config["lora"]["method"] = value
            elif key in ("model", "dataset"):
                config[key]["name"] = value
            else:
                config[key] = int(value)
        return config


def planned(folder: Path, grid: Any = GRID, **options: Any) -> Plan:
    """Plan a sweep that tunes by default."""
    tuning = TuningConfig(**{"lr_factors": FACTORS, **options.pop("tuning", {})})
    halving = HalvingConfig(**options.pop("halving", {}))
    composer: Any = Composer()
    sweep = SweepConfig(tuning=tuning, halving=halving, **options)
    return make_plan(grid, composer, folder, sweep, "sweep.fake:tuned")


class KilledError(Exception):
    """Stands for the end of the launcher."""


def run(plan: Plan, jobs_until_kill: int | None = None, **options: Any) -> Plan:
    """Run a plan with real executions of jobs that do not train."""
    left = [jobs_until_kill]

    def launch(jobs: list[Job], more: More) -> None:
        for job in jobs:
            if left[0] == 0:
                raise KilledError
            left[0] = None if left[0] is None else left[0] - 1
            execute(job.run_dir)

    means = Means(launch, lambda now: record(now), lambda now: False)
    return run_stages(plan, means, options.get("limit"), options.get("fail_fast", False))


def record(plan: Plan) -> None:
    write_tuning(plan.sweep_dir, tuning_record(plan.looks, plan.audit))


def survivors(folder: Path) -> dict[tuple[int, int], float]:
    """Rank and seed → learning rate of every run that went to its end."""
    runs = [read_outcome(path.parent) for path in folder.glob("*/outcome.json")]
    return {(run.config["lora"]["r"], run.seed): run.config["optimizer"]["lr"] for run in runs}


def tried(folder: Path) -> TuningRecord:
    found = read_tuning(folder)
    assert found is not None
    return found
