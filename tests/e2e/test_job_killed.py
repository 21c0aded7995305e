"""One command killed while it trains and again while it evaluates ends as if undisturbed."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from tests.e2e.commands import train
from tests.job.comparing import answers, comparable

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
SETTINGS = [
    "model=nano", "lora.r=4", "logger=csv", "optimizer.lr=3e-3", "trainer.accelerator=cpu",
    "trainer.max_epochs=1", "trainer.batch_size=4", "trainer.log_every=1",
    "trainer.checkpoint_every=3", "trainer.validate_every=10", "dataset.max_train=48",
    "dataset.max_validation=8", "dataset.max_test=12", "evaluation.batch_size=2",
    "evaluation.timed_answers=0", "generation.max_new_tokens=8", "report=false",
]  # fmt: skip
ANSWERS = "tuned.icd10_dialogues.jsonl"


def run(folder: Path, code: int, kill: tuple[str, int] = ("", 0)) -> Path:
    """Run the command, check its exit code, and return the run's directory."""
    folder.mkdir(exist_ok=True)
    paths = (f"paths.outputs={folder}", f"paths.cache={folder / 'cache'}")
    said = folder / "said.txt"
    assert train(said, *SETTINGS, *paths, kill=kill) == code, said.read_text()
    (found,) = [path.parent for path in folder.glob("*/job.json")]
    return found


def steps(run: Path) -> list[int]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record["step"] for record in records if "train_loss" in record["values"]]


def test_killed_in_training_and_in_evaluation(tmp_path: Path) -> None:
    whole, folder = run(tmp_path / "whole", 0), tmp_path / "killed"
    killed = run(folder, -signal.SIGKILL, kill=("last.ckpt", 3))
    assert max(steps(killed)) > 6, "steps after the last checkpoint are to be lost"
    assert (killed / "checkpoints" / "last.ckpt").exists()
    assert not (killed / "fit.json").exists()
    run(folder, -signal.SIGKILL, kill=(ANSWERS, 3))
    assert (killed / "fit.json").exists()
    assert (killed / "predictions" / ANSWERS).read_text().count("\n") == 4
    assert not (killed / "outcome.json").exists()
    run(folder, 0)
    assert comparable(killed) == comparable(whole)
    assert steps(killed) == steps(whole)
    for kind in ("base", "tuned"):
        name = f"predictions/{kind}.icd10_dialogues.jsonl"
        assert answers(killed / name) == answers(whole / name)
