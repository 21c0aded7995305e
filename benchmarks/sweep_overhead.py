"""What a job costs beside its own work: a warm worker against Hydra's basic launcher.

Sweeps of a few small real jobs (base loaded, tokens cached, zero-shot answers reused) and of jobs
that do nothing go through `hydra/launcher=local` (one worker) and `hydra/launcher=basic`. The
overhead of a job is the time from the record of the one before to its own, less the seconds of
training and answering that it recorded. The first job of a sweep, which loads everything, is left
out. Measured as well: how long 200 jobs take to plan, and a sweep of 200 jobs to say that it is
done.

    python benchmarks/sweep_overhead.py --sizes 1000 10000

measures in one process what so many jobs that do nothing take to plan, to submit, to be chosen one
by one, to be shown, and to be found done by the same command.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from sizewise.composition.compose import initialized
from sizewise.composition.jobs import HydraParts, sweeper_of
from sizewise.config import PricesConfig, RunConfig
from sizewise.job.submit import Job, submit
from sizewise.record.directories import OUTCOME_FILE
from sizewise.record.identity import reuse_key, run_identity
from sizewise.record.outcome import Outcome, read_outcome, write_outcome
from sizewise.sweep.board import read_board
from sizewise.sweep.finish import finish
from sizewise.sweep.grid import SweepContext, expand, record, sweep_options
from sizewise.sweep.launch.local_launcher import LocalBackend, Waiting
from sizewise.sweep.plan import Plan, make_plan

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = "SIZEWISE_BENCHMARK_OUTCOME"
SMALL = (
    "model=nano", "lora.r=4", "logger=none", "callbacks=none", "trainer.progress_bar=false",
    "dataset.max_train=24", "dataset.max_validation=8", "dataset.max_test=8",
    "trainer.max_epochs=1", "generation.max_new_tokens=4", "hydra.sweeper.finish=null",
)  # fmt: skip
NOTHING = "hydra.sweeper.job=sweep_overhead:nothing"
SUMMARY = "hydra.sweeper.finish=sweep_overhead:summary"
GRID = ("model=nano,micro", "lora.r=2,4,8,16", "seed=range(1,26)")


def nothing(cfg: RunConfig, run_dir: Path) -> Outcome:
    """A job that writes a record that another job has made, and nothing else."""
    made = read_outcome(Path(os.environ[TEMPLATE]))
    outcome = replace(made, run_id=run_dir.name, identity=run_identity(cfg).hash)
    write_outcome(outcome, run_dir)
    return outcome


def summary(
    sweep_dir: Path,
    run_dirs: Sequence[Path],
    failures: Sequence[object],
    *,
    prices: PricesConfig,
    margin: float | None,
) -> None:
    """Stand in for the report, which is measured elsewhere."""
    (sweep_dir / "summary.txt").write_text(f"{len(run_dirs)} done\n")


def sweep(folder: Path, name: str, *overrides: str) -> tuple[float, float, Path]:
    """Run a sweep; return seconds until its plan was shown, seconds in all, and its directory."""
    command = [sys.executable, str(ROOT / "train.py"), "-m", *overrides]
    command += [f"paths.sweeps={folder}", f"paths.cache={folder / 'cache'}", f"sweep.name={name}"]
    here = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    began, planned = time.perf_counter(), float("nan")
    with subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": here}, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if "to do. Directory" in line:
                planned = time.perf_counter() - began
    if process.returncode != 0:
        raise SystemExit(f"the sweep {name} failed")
    return planned, time.perf_counter() - began, folder / name


def overheads(sweep_dir: Path, work: bool) -> list[float]:
    """Seconds between the records of successive jobs, less their own work where they did any."""
    records = sorted(sweep_dir.glob(f"*/{OUTCOME_FILE}"), key=lambda path: path.stat().st_mtime_ns)
    times = [path.stat().st_mtime_ns / 1e9 for path in records]
    found = []
    for path, before, after in zip(records[1:], times, times[1:], strict=False):
        cost = read_outcome(path.parent).cost
        own = (cost.train_seconds or 0.0) + (cost.eval_seconds or 0.0) if work else 0.0
        found.append(after - before - own)
    return found


def measure(jobs: int, idle: int) -> dict[str, object]:
    """Run all sweeps and return the figures in seconds."""
    rates = ",".join(str(round(1e-3 + 1e-5 * number, 6)) for number in range(jobs))
    local = ("hydra/launcher=local", "hydra.launcher.n_jobs=1")
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for way, launcher in (("warm_worker", local), ("basic", ("hydra/launcher=basic",))):
            _, _, done = sweep(folder, f"real_{way}", *SMALL, f"optimizer.lr={rates}", *launcher)
            found[way] = {"real_job": statistics.median(overheads(done, work=True))}
            os.environ[TEMPLATE] = str(next(done.glob("*/outcome.json")).parent)
            count = 200 if way == "warm_worker" else idle
            grid = GRID if way == "warm_worker" else (f"seed=range(1,{idle + 1})",)
            planned, _, done = sweep(folder, f"idle_{way}", *grid, NOTHING, SUMMARY, *launcher)
            found[way]["job_that_does_nothing"] = statistics.median(overheads(done, work=False))
            found[way][f"planning_{count}_jobs"] = planned
        _, seconds, _ = sweep(folder, "idle_warm_worker", *GRID, NOTHING, SUMMARY, *local)
    ratios = {
        key: found["warm_worker"][key] / found["basic"][key]
        for key in ("real_job", "job_that_does_nothing")
    }
    return {
        "seconds": {way: rounded(figures) for way, figures in found.items()},
        "ratio_to_basic": rounded(ratios),
        "all_done_200_jobs": round(seconds, 2),
    }


def rounded(figures: dict[str, float]) -> dict[str, float]:
    """Three digits after the point."""
    return {name: round(value, 3) for name, value in figures.items()}


def scaling(jobs: int, outcome: Outcome, folder: Path) -> dict[str, float]:
    """Take a sweep of so many jobs through its stages; return the seconds of each."""
    seeds = f"seed=range(1,{jobs // 8 + 1})"
    sweep_dir = folder / f"scaling_{jobs}"
    command = ["model=nano,micro", "lora.r=2,4,8,16", seeds, "logger=none", "dataset.max_test=8"]
    command += ["sweep.baselines=false", f"sweep.dir={sweep_dir}", "hydra/launcher=local"]
    times: dict[str, float] = {}
    with initialized(command):
        sweeper, config = sweeper_of(command)
        hydra: HydraParts = cast(Any, sweeper).hydra
        with timed(times, "plan"):
            plan = planned(hydra, command)
        with timed(times, "submit"):
            record(plan, command, sweep_options(config), None)
            for job in plan.to_do:
                submit(job)
        with timed(times, "choose"):
            waiting: Waiting[Job] = Waiting(plan.to_do)
            base: str | None = None
            while waiting:
                base = reuse_key(waiting.take(base, {base}).config)
        with timed(times, "board"):
            read_board(sweep_dir)
        for job in plan.to_do:
            write_outcome(
                replace(outcome, run_id=job.run_dir.name, identity=job.identity.hash), job.run_dir
            )
        with timed(times, "resume"):
            again = planned(hydra, command)
            assert len(again.done) == len(plan.jobs) == jobs
            record(again, command, sweep_options(config), None)
            finish(again, "sweep_overhead:summary", PricesConfig())
        with timed(times, "board of done jobs"):
            read_board(sweep_dir)
    return times


def planned(hydra: HydraParts, command: list[str]) -> Plan:
    """Plan as a command does, without starting anything."""
    context = SweepContext(hydra)
    grid = expand(command, context.options.arms, context.composer.parse)
    plan = make_plan(grid, context.composer, context.sweep_dir, context.options, "none:none")
    LocalBackend(n_jobs=2, gpus=[]).check(plan.to_do)
    return plan


@contextmanager
def timed(times: dict[str, float], name: str) -> Iterator[None]:
    began = time.process_time()
    yield
    times[name] = time.process_time() - began


def print_scaling(sizes: Sequence[int]) -> None:
    """Print CPU seconds of every stage, a column for each number of jobs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        *_, done = sweep(folder, "template", *SMALL, "hydra/launcher=basic", "seed=1")
        outcome = read_outcome(next(done.glob("*/outcome.json")).parent)
        found = {jobs: scaling(jobs, outcome, folder) for jobs in sizes}
    print("| CPU seconds of | " + " | ".join(f"{jobs:,} jobs" for jobs in sizes) + " |")
    print("|---|" + "---:|" * len(sizes))
    for stage in found[sizes[0]]:
        print(f"| {stage} | " + " | ".join(f"{found[jobs][stage]:.2f}" for jobs in sizes) + " |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=6, help="real jobs of each sweep")
    parser.add_argument("--idle", type=int, default=20, help="jobs that do nothing, basic launcher")
    parser.add_argument("--sizes", type=int, nargs="+", help="jobs of sweeps that do nothing")
    arguments = parser.parse_args()
    if arguments.sizes:
        print_scaling(arguments.sizes)
        raise SystemExit
    print(json.dumps(measure(arguments.jobs, arguments.idle), indent=2))
