"""Sweeps of real jobs on the embedded models: killed, and distributed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.tracking.tracking_helpers import history, offline_folders

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.long]
SMALL = [
    "-m", "debug=fast", "trainer.max_steps=4", "trainer.checkpoint_every=1",
    "trainer.accelerator=cpu", "lora.dropout=0.0", "sweep.baselines=false",
]  # fmt: skip
GRID = ["model=nano,micro", "lora.r=2,4", "seed=1,2,3", "logger=wandb"]


def start(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable, str(ROOT / "train.py"), *SMALL, *overrides, "sweep.name=all",
            f"paths.sweeps={folder}", f"paths.cache={folder / 'cache'}",
        ],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True,
        cwd=ROOT, env={**os.environ, "WANDB_MODE": "offline"},
    )  # fmt: skip


def flat(evaluations: dict[str, dict[str, float]]) -> dict[str, float]:
    return {f"{name} {k}": v for name, scores in evaluations.items() for k, v in scores.items()}


def finished(folder: Path) -> list[Path]:
    return sorted((folder / "all").glob("*/outcome.json"))


def figures(path: Path) -> dict[str, Any]:
    """What two runs of one job have in common: everything but times, places and hardware."""
    record = json.loads(path.read_text())
    return {
        "identity": record["identity"],
        "objective": record["objective"],
        "validation": {k: v for k, v in record["validation"].items() if "seconds" not in k},
        "steps": record["cost"]["train_steps"],
        "tokens": record["cost"]["train_tokens"],
        **{f"{side} scores": quality(record[side]) for side in ("base", "tuned")},
    }


def quality(evaluations: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {
        name: {k: v for k, v in entry["scores"].items() if not k.startswith("efficiency")}
        for name, entry in evaluations.items()
    }


def test_killed_five_times_real_jobs_end_as_if_they_had_run_through(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(whole, *GRID)
    assert process.wait(3600) == 0, process.communicate()[1]
    moments = random.Random(5)
    for target in (1, 3, 5, 7, 9):
        with start(killed, *GRID) as process:
            while len(finished(killed)) < target and process.poll() is None:
                time.sleep(0.05)
            time.sleep(moments.uniform(0, 3))
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    process = start(killed, *GRID)
    _, said = process.communicate(timeout=3600)
    assert process.returncode == 0, said
    expected = {path.parent.name: figures(path) for path in finished(whole)}
    assert len(expected) == 12
    assert {path.parent.name: figures(path) for path in finished(killed)} == expected
    for path in finished(killed):
        assert curves(path.parent) == curves(whole / "all" / path.parent.name)
    names, again = (
        sorted(path.name.split("-", 3)[3] for path in offline_folders(folder / "all"))
        for folder in (whole, killed)
    )
    assert names == again, "no run twice"
    assert sum(name.startswith("summary-") for name in names) == 1


def curves(run: Path) -> list[dict[str, float]]:
    """The one history that W&B has of a run, less times."""
    (folder,) = offline_folders(run)
    timed = ("seconds", "per_second", "latency")
    kept = [
        {k: v for k, v in item.items() if not any(word in k for word in timed)}
        for item in history(folder)
    ]
    assert [item["_step"] for item in kept] == sorted({item["_step"] for item in kept})
    assert sum("train_loss" in item for item in kept) >= 1
    return kept


def losses(folder: Path) -> list[tuple[int, str, float]]:
    (path,) = (folder / "all").glob("*/metrics.jsonl")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        (record["step"], name, value)
        for record in records
        for name, value in record["values"].items()
        if name.endswith("loss")
    ]


def test_two_processes_train_a_job_to_the_losses_of_one(tmp_path: Path) -> None:
    common = ("seed=1", "evaluation.zero_shot=false", "hydra.sweeper.finish=null")
    runs = {
        "one": ("trainer.batch_size=8",),
        "two": ("trainer=ddp", "trainer.devices=2", "trainer.batch_size=4"),
        "divided": ("trainer=fsdp", "trainer.devices=2", "trainer.batch_size=4"),
    }
    for name, overrides in runs.items():
        process = start(tmp_path / name, *overrides, *common)
        _, said = process.communicate(timeout=1800)
        assert process.returncode == 0, said
        assert len(finished(tmp_path / name)) == 1
        assert said.count("Sweep all: 1 jobs") == 1, "the multirun was launched twice"
    one = losses(tmp_path / "one")
    assert len(one) >= 3
    for name in ("two", "divided"):
        several = losses(tmp_path / name)
        assert [entry[:2] for entry in one] == [entry[:2] for entry in several]
        expected = pytest.approx([entry[2] for entry in one], rel=1e-4)
        assert [entry[2] for entry in several] == expected
    tuned = [
        quality(json.loads(finished(tmp_path / name)[0].read_text())["tuned"]) for name in runs
    ]
    for scores in tuned[1:]:
        assert flat(scores) == pytest.approx(flat(tuned[0]), abs=1e-3)
