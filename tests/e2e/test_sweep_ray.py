"""The Ray launcher on this machine, with jobs that do nothing slow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sizewise.sweep.status import sweep_status

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.ray]


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    paths = [str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [
            sys.executable, str(ROOT / "train.py"), "-m", "seed=1,901,902,903,2,3",
            f"paths.sweeps={folder}", "sweep.name=all", "hydra/launcher=ray",
            "hydra.sweeper.job=sweep.fake:job", "hydra.sweeper.finish=sweep.fake:finish",
            "sweep.baselines=false",
        ],
        env={
            **os.environ, "PYTHONPATH": os.pathsep.join(paths),
            "RAY_memory_monitor_refresh_ms": "0",  # else a machine short of memory kills jobs
        },
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_crashes_stay_with_their_own_job_and_are_tried_again(tmp_path: Path) -> None:
    first = run(tmp_path)
    assert first.returncode == 1
    assert "3 of 6 jobs have no result" in first.stderr
    states = [row.state for row in sweep_status(tmp_path / "all")]
    assert sorted(states) == ["done"] * 3 + ["failed"] * 3
    (tmp_path / "all" / "repaired").touch()
    second = run(tmp_path)
    assert second.returncode == 0, second.stderr
    assert "3 done, 3 to do" in second.stderr
