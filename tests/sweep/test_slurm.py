"""What the SLURM launcher refuses before it submits, and what it does without a SLURM."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from sizewise.errors import SweepError
from sizewise.record.state import JobState, job_state
from sizewise.sweep.launch import slurm_queue
from sizewise.sweep.launch.slurm_launcher import SlurmBackend, check_resources
from sizewise.sweep.launch.slurm_queue import queue_reasons, require_queued_ids, require_slurm
from sizewise.sweep.launch.task import SlurmTask

from .conftest import Submit
from .fake import RAISES


@pytest.mark.parametrize(
    ("slurm", "trainer", "key"),
    [
        ({"nodes": 2}, {}, "nodes=2"),
        ({"nodes": 1}, {"num_nodes": 2}, "trainer.num_nodes=2"),
        ({}, {"devices": 4}, "tasks_per_node=1"),
        ({"tasks_per_node": 2, "gpus_per_node": 1}, {"devices": 2}, "gpus_per_node=1"),
        ({}, {"accelerator": "gpu"}, "gpus_per_node=1"),
    ],
)
def test_contradictions_are_refused(
    slurm: dict[str, Any], trainer: dict[str, Any], key: str
) -> None:
    with pytest.raises(SweepError, match=key):
        check_resources(slurm, {"trainer": trainer}, "job")


def test_a_base_spread_over_gpus_is_one_task_that_sees_them_all() -> None:
    spread: dict[str, Any] = {
        "model": {"device_map": "auto"}, "trainer": {"devices": 4}, "lora": {"method": "none"},
    }  # fmt: skip
    check_resources({"gpus_per_node": 4}, spread, "job")
    check_resources({"gpus_per_node": 4, "tasks_per_node": 4}, spread, "beside jobs that train")
    with pytest.raises(SweepError, match="gpus_per_node=2 contradicts"):
        check_resources({"gpus_per_node": 2}, spread, "job")
    with pytest.raises(SweepError, match=r"gpus_per_task.*gpus_per_node=4"):
        check_resources({"gpus_per_task": 1, "tasks_per_node": 4}, spread, "job")
    trained = spread | {"lora": {"method": "lora"}, "trainer": {"devices": 4, "strategy": "fsdp"}}
    with pytest.raises(SweepError, match="tasks_per_node=1 contradicts"):
        check_resources({"gpus_per_node": 4}, trained, "job")
    check_resources({"gpus_per_node": 4, "tasks_per_node": 4}, trained, "job")


@pytest.mark.parametrize(
    ("slurm", "trainer"),
    [
        ({}, {}),
        ({"gpus_per_node": 1}, {"accelerator": "auto"}),
        ({"gpus_per_node": 4, "tasks_per_node": 4}, {"devices": 4, "accelerator": "gpu"}),
        ({"gres": "gpu:1"}, {"accelerator": "cuda"}),
    ],
)
def test_settings_that_agree_pass(slurm: dict[str, Any], trainer: dict[str, Any]) -> None:
    check_resources(slurm, {"trainer": trainer}, "job")


def test_a_machine_without_slurm_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, submitted: Submit
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SweepError, match=r"sbatch.*hydra/launcher=local"):
        require_slurm()
    with pytest.raises(SweepError, match="sbatch"):
        SlurmBackend().check([submitted(1)])
    assert queue_reasons() is None


def test_a_silent_controller_is_asked_again_and_never_taken_for_an_empty_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slurm_queue, "WAIT_SECONDS", 0.0)
    answers = iter([None, {"7": "Priority"}])
    monkeypatch.setattr(slurm_queue, "queue_reasons", lambda: next(answers, None))
    assert require_queued_ids() == {"7"}
    with pytest.raises(SweepError, match=r"squeue did not answer 4 times.*Nothing was submitted"):
        require_queued_ids()


def test_a_failed_job_fails_for_slurm_too(
    submitted: Submit, capfd: pytest.CaptureFixture[str]
) -> None:
    job = submitted(RAISES)
    with pytest.raises(SweepError, match="this job was made to fail"):
        SlurmTask([str(job.run_dir)])()
    assert job_state(job.run_dir) == JobState.FAILED
    os.write(1, b"after the job")
    assert "after the job" in capfd.readouterr().out, "the process did not get its output back"
