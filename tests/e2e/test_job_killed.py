"""One command killed while it trains and again while it evaluates ends as if undisturbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.job.comparing import answers, comparable

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.e2e, pytest.mark.slow]
SETTINGS = [
    "model=nano", "lora.r=4", "logger=csv", "trainer.max_epochs=1", "trainer.checkpoint_every=3",
    "trainer.validate_every=10", "trainer.accelerator=cpu", "trainer.batch_size=4",
    "dataset.max_train=240", "dataset.max_validation=8", "dataset.max_test=60",
    "evaluation.batch_size=2", "optimizer.lr=3e-3",
]  # fmt: skip
Moment = Callable[[Path], bool]


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable, str(ROOT / "train.py"), *SETTINGS,
            f"paths.outputs={folder}", f"paths.cache={folder / 'cache'}",
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        cwd=ROOT,
    )  # fmt: skip


def finish(folder: Path) -> Path:
    process = start(folder)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    return run_dir(folder)


def run_dir(folder: Path) -> Path:
    (found,) = [path.parent for path in folder.glob("*/job.json")]
    return found


def kill_at(folder: Path, moment: Moment) -> None:
    """Start the command and end its whole process group with SIGKILL at a moment."""
    with start(folder) as process:
        end = time.monotonic() + 300
        while not (list(folder.glob("*/job.json")) and moment(run_dir(folder))):
            assert process.poll() is None, "it ended before the moment came"
            assert time.monotonic() < end, "the moment did not come"
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    assert not (run_dir(folder) / "outcome.json").exists()


def training(run: Path) -> bool:
    return (run / "checkpoints" / "last.ckpt").exists() and not (run / "fit.json").exists()


def answering(run: Path) -> bool:
    path = run / "predictions" / "tuned.icd10_dialogues.jsonl"
    return path.exists() and 4 <= path.read_text().count("\n") < 60


def steps(run: Path) -> list[int]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record["step"] for record in records if "train_loss" in record["values"]]


def test_killed_in_training_and_in_evaluation(tmp_path: Path) -> None:
    whole = finish(tmp_path / "whole")
    kill_at(tmp_path / "killed", training)
    kill_at(tmp_path / "killed", answering)
    killed = finish(tmp_path / "killed")
    assert comparable(killed) == comparable(whole)
    assert steps(killed) == steps(whole)
    for kind in ("base", "tuned"):
        name = f"predictions/{kind}.icd10_dialogues.jsonl"
        assert answers(killed / name) == answers(whole / name)
