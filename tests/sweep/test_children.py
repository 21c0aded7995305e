"""Further processes of a distributed job never begin the sweep again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from sizewise.job.execute import children_run
from sizewise.record.state import JobState, job_state

from .conftest import Submit
from .fake import trace

# What Lightning does to begin a process (pytorch_lightning.strategies.launchers.subprocess_script).
LIGHTNING = """
import sys, subprocess
import __main__
from pathlib import Path
from sizewise.job.execute import children_run
sys.argv = ["train.py", "-m", "seed=1,2"]
with children_run(Path(sys.stdin.readline().strip())):
    command = [sys.executable, "-m", __main__.__spec__.name, *sys.argv[1:]]
assert sys.argv == ["train.py", "-m", "seed=1,2"]
raise SystemExit(subprocess.run(command).returncode)
"""


def test_a_child_runs_its_one_job_and_keeps_no_books(submitted: Submit) -> None:
    job = submitted(5)
    result = subprocess.run(
        [sys.executable, "-c", LIGHTNING], input=f"{job.run_dir}\n", text=True,
        capture_output=True, check=False, env={**os.environ, "LOCAL_RANK": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert [entry["what"] for entry in trace(job.run_dir)] == ["begin", "end"]
    assert not (job.run_dir / ".claims").exists()


def test_hydra_is_hidden_while_a_job_runs(tmp_path: Path, submitted: Submit) -> None:
    config = OmegaConf.create({"hydra": {}})
    HydraConfig.instance().cfg = config  # type: ignore[assignment]
    before = (sys.argv, dict(os.environ))
    with children_run(tmp_path):
        assert not HydraConfig.initialized()
        os.environ["WORLD_SIZE"] = os.environ["LOCAL_RANK"] = "2"
    assert (sys.argv, dict(os.environ)) == before
    assert HydraConfig.instance().cfg is config
    HydraConfig.instance().cfg = None
    assert job_state(submitted(1).run_dir) == JobState.WAITING
