"""One command killed while it trains and again while it evaluates ends as if undisturbed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.job.comparing import answers, comparable

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.e2e, pytest.mark.slow]
SETTINGS = [
    "model=nano", "lora.r=4", "logger=csv", "optimizer.lr=3e-3", "trainer.accelerator=cpu",
    "trainer.max_epochs=1", "trainer.batch_size=4", "trainer.log_every=1",
    "trainer.checkpoint_every=3", "trainer.validate_every=10", "dataset.max_train=48",
    "dataset.max_validation=8", "dataset.max_test=12", "evaluation.batch_size=2",
    "generation.max_new_tokens=8", "metric=[perplexity,repetition]",
    "dataset.primary=perplexity/bits_per_byte",
]  # fmt: skip
TUNED = "tuned.icd10_dialogues.jsonl"
# A script whose process group is killed when it is about to write a file for the n-th time.
KILLED = """
import os, runpy, signal, sys
from sizewise.evaluation.predictions import PredictionStore
from sizewise.training import checkpoint

name, times, *sys.argv = sys.argv[1:]

def killing(function, written):
    calls = 0
    def call(*arguments):
        nonlocal calls
        calls += written(*arguments).name == name
        if calls == int(times):
            os.killpg(0, signal.SIGKILL)
        return function(*arguments)
    return call

checkpoint.write_checkpoint = killing(checkpoint.write_checkpoint, lambda _, path: path)
PredictionStore.append = killing(PredictionStore.append, lambda store, _: store.path)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(folder: Path, *python: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable, *python, str(ROOT / "train.py"), *SETTINGS,
            f"paths.outputs={folder}", f"paths.cache={folder / 'cache'}",
        ],
        capture_output=True, text=True, timeout=600, check=False, start_new_session=True, cwd=ROOT,
    )  # fmt: skip


def finish(folder: Path) -> Path:
    done = run(folder)
    assert done.returncode == 0, done.stderr
    return run_dir(folder)


def run_dir(folder: Path) -> Path:
    (found,) = [path.parent for path in folder.glob("*/job.json")]
    return found


def kill_at(folder: Path, name: str, times: int) -> Path:
    """Run the command until it is about to write a file for the n-th time."""
    killed = run(folder, "-c", KILLED, name, str(times))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (run_dir(folder) / "outcome.json").exists()
    return run_dir(folder)


def steps(run: Path) -> list[int]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record["step"] for record in records if "train_loss" in record["values"]]


def test_killed_in_training_and_in_evaluation(tmp_path: Path) -> None:
    whole = finish(tmp_path / "whole")
    killed = kill_at(tmp_path / "killed", "last.ckpt", 3)
    assert (killed / "checkpoints" / "last.ckpt").exists()
    assert max(steps(killed)) > 6, "nothing was lost"
    assert not (killed / "fit.json").exists()
    kill_at(tmp_path / "killed", TUNED, 3)
    assert (killed / "fit.json").exists()
    assert (killed / "predictions" / TUNED).read_text().count("\n") == 4
    killed = finish(tmp_path / "killed")
    assert comparable(killed) == comparable(whole)
    assert steps(killed) == steps(whole)
    for kind in ("base", "tuned"):
        name = f"predictions/{kind}.icd10_dialogues.jsonl"
        assert answers(killed / name) == answers(whole / name)
