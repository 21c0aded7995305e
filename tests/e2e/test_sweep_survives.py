"""Sweeps that are killed, or started twice, with jobs that do nothing slow."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sizewise.record.claims import process_start

ROOT = Path(__file__).resolve().parents[2]
FAKES = ROOT / "tests"
pytestmark = [pytest.mark.e2e, pytest.mark.slow]
JOBS = 12
GRID = ["-m", "lora.r=2,4,8", "seed=1,2,3,4", "hydra.launcher.n_jobs=2"]


def start(folder: Path, seconds: float, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            str(ROOT / "train.py"),
            *GRID,
            f"paths.sweeps={folder}",
            "sweep.name=all",
            "hydra.sweeper.job=sweep.fake:job",
            "hydra.sweeper.finish=sweep.fake:finish",
        ],
        env={
            **os.environ,
            "PYTHONPATH": str(FAKES),
            "FAKE_SECONDS": str(seconds),
            **environment,
        },
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def outcomes(folder: Path) -> dict[str, object]:
    return {
        path.parent.name: {
            k: v for k, v in json.loads(path.read_text()).items() if k not in ("config", "sha256")
        }
        for path in (folder / "all").glob("*/outcome.json")
    }


def ends(folder: Path) -> list[int]:
    """How often each job came to its end."""
    traces = (folder / "all").glob("*/trace.jsonl")
    return [path.read_text().count('"end"') for path in traces]


def test_killed_five_times_it_ends_like_one_that_ran_through(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole, 0).wait(300) == 0
    moments = random.Random(11)
    for round_number in range(5):
        with start(killed, 0.7) as process:
            # Always after the first job of this round began, at any point from then on.
            wait_for_begin(killed, process, round_number)
            time.sleep(moments.uniform(0, 1.2))
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    last = start(killed, 0)
    _, said = last.communicate(timeout=300)
    assert last.returncode == 0, said
    assert outcomes(killed) == outcomes(whole)
    assert len(outcomes(killed)) == JOBS
    assert ends(whole) == [1] * JOBS
    # A job that was killed after it wrote its outcome has no "end".
    assert max(ends(killed)) == 1


def wait_for_begin(folder: Path, process: subprocess.Popen[str], rounds: int) -> None:
    def begun() -> int:
        return sum(p.read_text().count('"begin"') for p in (folder / "all").glob("*/trace.jsonl"))

    before, end = begun(), time.monotonic() + 180
    while begun() == before and process.poll() is None:
        assert time.monotonic() < end, f"round {rounds}: no job began"
        time.sleep(0.02)


def test_two_at_once_share_the_work(tmp_path: Path) -> None:
    gate, end = tmp_path / "gate", time.monotonic() + 300
    both = [start(tmp_path, 0, FAKE_GATE=str(gate)) for _ in range(2)]
    try:
        while len(workers(tmp_path)) < 4:
            assert time.monotonic() < end, "both processes' workers should have had jobs"
            time.sleep(0.05)
    finally:
        gate.touch()
    said = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert ends(tmp_path) == [1] * JOBS
    summaries = (tmp_path / "all" / "summaries.jsonl").read_text().splitlines()
    assert summaries == ['{"done": 12, "failed": 0}'], "the summary is written once"


def test_a_dead_pool_takes_its_workers_along(tmp_path: Path) -> None:
    with start(tmp_path, 600) as process:
        wait_for_begin(tmp_path, process, 0)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    end = time.monotonic() + 120
    while alive := [pid for pid in workers(tmp_path) if process_start(pid) is not None]:
        assert time.monotonic() < end, alive
        time.sleep(0.1)


def workers(folder: Path) -> set[int]:
    """The processes that have begun a job."""
    return {
        int(json.loads(line)["pid"])
        for path in (folder / "all").glob("*/trace.jsonl")
        for line in path.read_text().splitlines()
        if '"pid"' in line
    }
