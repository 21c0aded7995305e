"""The SLURM launcher on a real SLURM of one node, with jobs that do nothing slow.

Needs a default partition whose jobs are preempted by requeueing, with a grace time, and another,
``high``, that preempts it; ``SlurmctldParameters=preempt_send_user_signal``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from sizewise.sweep.launch.slurm_launcher import queue_id
from sizewise.sweep.status import sweep_status

ROOT = Path(__file__).resolve().parents[2]
EXCLUSIVE = "+hydra.launcher.additional_parameters.exclusive=true"
pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.slurm]


FAKE = ("hydra.sweeper.job=sweep.fake:job", "hydra.sweeper.finish=sweep.fake:finish")


def start(
    folder: Path, *overrides: str, jobs: Sequence[str] = FAKE, **environment: str
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            str(ROOT / "train.py"),
            "-m",
            *overrides,
            *jobs,
            f"paths.sweeps={folder}",
            "sweep.name=all",
            "sweep.baselines=false",
            "hydra/launcher=slurm",
            "hydra.launcher.poll_seconds=0.5",
            "hydra.launcher.cpus_per_task=1",
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests"), **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = process.communicate(timeout=600)
    return process.returncode, said


def traces(folder: Path) -> list[list[str]]:
    return [
        [json.loads(line)["what"] for line in path.read_text().splitlines()]
        for path in sorted((folder / "all").glob("*/trace.jsonl"))
    ]


def until(condition: Callable[[], object], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def running_id(folder: Path, process: subprocess.Popen[str]) -> str:
    """Wait until the one job has begun and return its id."""
    until(lambda: traces(folder) or process.poll() is not None)
    assert process.poll() is None, process.communicate()[1]
    (path,) = (folder / "all").glob("*/queued.json")
    found = queue_id(path.parent)
    assert found is not None
    return found


def test_an_array_isolates_failures_and_the_next_start_mends_them(tmp_path: Path) -> None:
    code, said = finish(start(tmp_path, "seed=1,901,902,903,2,3"))
    assert code == 1
    for reason in ("this job was made to fail", "exit code 3", "3 of 6 jobs have no result"):
        assert reason in said
    states = [row.state for row in sweep_status(tmp_path / "all")]
    assert sorted(states) == ["done"] * 3 + ["failed"] * 3
    (tmp_path / "all" / "repaired").touch()
    code, said = finish(start(tmp_path, "seed=1,901,902,903,2,3"))
    assert code == 0, said
    assert "3 done, 3 to do" in said
    assert sum(trace.count("end") for trace in traces(tmp_path)) == 6


def test_a_preempted_job_is_requeued_and_goes_on_where_it_was(tmp_path: Path) -> None:
    process = start(
        tmp_path,
        "seed=1",
        "hydra.launcher.timeout_min=60",
        EXCLUSIVE,
        FAKE_SECONDS="600",
        FAKE_SLOW_ONCE="1",
    )
    running_id(tmp_path, process)
    preempt = ["sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap=true"]
    subprocess.run(preempt, check=True, capture_output=True)
    code, said = finish(process)
    assert code == 0, said
    assert traces(tmp_path) == [["begin", "begin", "end"]]


def test_a_job_past_its_time_limit_is_requeued(tmp_path: Path) -> None:
    process = start(
        tmp_path,
        "seed=1",
        # SLURM warns up to half a minute early, so the job has half a minute to begin in.
        "hydra.launcher.timeout_min=2",
        "hydra.launcher.signal_delay_s=60",
        "hydra.launcher.max_num_timeout=3",
        FAKE_SECONDS="600",
        FAKE_SLOW_ONCE="1",
    )
    code, said = finish(process)
    assert code == 0, said
    assert traces(tmp_path) == [["begin", "begin", "end"]]


def test_a_job_that_is_never_done_in_time_fails_with_that_reason(tmp_path: Path) -> None:
    process = start(
        tmp_path,
        "seed=1",
        "hydra.launcher.timeout_min=5",
        "hydra.launcher.max_num_timeout=0",
        FAKE_SECONDS="600",
    )
    # What SLURM sends before the time limit; of so short a job submitit takes it for the limit.
    warn = ["scancel", "--signal=USR2", running_id(tmp_path, process)]
    subprocess.run(warn, check=True)
    code, said = finish(process)
    assert code == 1
    assert "timed-out too many times" in said


def test_a_cancelled_job_is_reported(tmp_path: Path) -> None:
    process = start(tmp_path, "seed=1", FAKE_SECONDS="600")
    subprocess.run(
        ["scancel", "--signal=KILL", "--full", running_id(tmp_path, process)], check=True
    )
    code, said = finish(process)
    assert code == 1
    assert "without a result" in said


def test_jobs_in_the_queue_are_not_submitted_again(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    code, said = finish(
        start(tmp_path, "seed=1,2", "hydra.launcher.wait=false", FAKE_GATE=str(gate))
    )
    assert (code, "Submitted" in said) == (0, True), said
    second = start(tmp_path, "seed=1,2")
    assert second.stderr is not None
    lines = iter(second.stderr.readline, "")
    assert any("2 jobs are in SLURM's queue already" in line for line in lines)
    gate.touch()
    code, said = finish(second)
    assert code == 0, said
    assert traces(tmp_path) == [["begin", "end"]] * 2


def test_a_pack_that_is_preempted_goes_on_as_a_whole(tmp_path: Path) -> None:
    real = (
        "stage=train", "logger=none", "trainer.accelerator=cpu", "dataset.max_train=16",
        "dataset.max_validation=8", "dataset.max_test=8", "trainer.batch_size=4",
        "trainer.log_every=1", f"paths.cache={tmp_path / 'cache'}", "sweep.estimate=false",
    )  # fmt: skip
    process = start(
        tmp_path, "model=nano", "lora.r=2,4", "trainer.max_epochs=40", "callbacks=none",
        "sweep.packing=2", "hydra.launcher.array_parallelism=1", "hydra.launcher.timeout_min=60",
        jobs=real,
    )  # fmt: skip
    sweep_dir = tmp_path / "all"
    until(lambda: len(trained(sweep_dir)) == 2 or process.poll() is not None)
    (job_id,) = {queue_id(path.parent) for path in sweep_dir.glob("*/queued.json")}
    assert job_id is not None
    subprocess.run(["scancel", "--signal=USR2", job_id], check=True)
    code, said = finish(process)
    assert code == 0, said
    outcomes = [json.loads(path.read_text()) for path in sweep_dir.glob("*/outcome.json")]
    # The signal may come when one of both has just ended a step and the other has not.
    assert [round(each["cost"]["packed"], 1) for each in outcomes] == [2.0, 2.0]
    for log in sweep_dir.glob("*/job.log"):
        assert log.read_text().count("Stopping after this optimiser step") == 1
    for steps in trained(sweep_dir).values():
        assert steps == list(range(1, 161)), "every step once"


def trained(sweep_dir: Path) -> dict[str, list[int]]:
    """The optimiser steps of every run that has made one, as its history has them."""
    found: dict[str, list[int]] = {}
    for path in sweep_dir.glob("*/metrics.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        if steps := [row["step"] for row in rows if "train_loss" in row["values"]]:
            found[path.parent.name] = steps
    return found
