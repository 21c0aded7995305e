"""The Ray launcher on this machine, with jobs that do nothing slow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sizewise.sweep.status import sweep_status

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.ray]


FAKE = (
    "seed=1,901,902,903,2,3", "hydra.sweeper.job=sweep.fake:job",
    "hydra.sweeper.finish=sweep.fake:finish",
)  # fmt: skip
PACKED = (
    "model=nano", "lora.r=2,4", "stage=train", "logger=none", "callbacks=none", "sweep.packing=2",
    f"hydra.launcher.num_cpus={os.cpu_count()}", "trainer.accelerator=cpu", "trainer.max_epochs=1",
    "dataset.max_train=8", "dataset.max_validation=8", "dataset.max_test=8", "sweep.estimate=false",
)  # fmt: skip


def run(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    paths = [str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [
            sys.executable, str(ROOT / "train.py"), "-m", *overrides,
            f"paths.sweeps={folder}", f"paths.cache={folder / 'cache'}", "sweep.name=all",
            "hydra/launcher=ray", "sweep.baselines=false",
        ],
        env={
            **os.environ, "PYTHONPATH": os.pathsep.join(paths),
            "RAY_memory_monitor_refresh_ms": "0",  # else a machine short of memory kills jobs
        },
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_crashes_stay_with_their_own_job_and_are_tried_again(tmp_path: Path) -> None:
    first = run(tmp_path, *FAKE)
    assert first.returncode == 1
    assert "3 of 6 jobs have no result" in first.stderr
    states = [row.state for row in sweep_status(tmp_path / "all")]
    assert sorted(states) == ["done"] * 3 + ["failed"] * 3
    (tmp_path / "all" / "repaired").touch()
    second = run(tmp_path, *FAKE)
    assert second.returncode == 0, second.stderr
    assert "3 done, 3 to do" in second.stderr


def test_jobs_that_share_passes_are_one_task(tmp_path: Path) -> None:
    ended = run(tmp_path, *PACKED)
    assert ended.returncode == 0, ended.stderr
    outcomes = [json.loads(path.read_text()) for path in tmp_path.glob("all/*/outcome.json")]
    assert [each["cost"]["packed"] for each in outcomes] == [2.0, 2.0]
