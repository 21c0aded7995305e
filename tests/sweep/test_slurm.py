"""What the SLURM launcher refuses before it submits, and what it does without a SLURM."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from sizewise.errors import SweepError
from sizewise.files import write_json
from sizewise.record.directories import RunDir
from sizewise.record.state import JobState, job_state, record_failure
from sizewise.sweep.launch import slurm_launcher, slurm_queue, task
from sizewise.sweep.launch.backend import LaunchOptions
from sizewise.sweep.launch.packing import Packing
from sizewise.sweep.launch.progress import Progress
from sizewise.sweep.launch.slurm_launcher import SlurmBackend, check_resources, queue_id
from sizewise.sweep.launch.slurm_queue import queue_reasons, require_queued_ids, require_slurm
from sizewise.sweep.launch.task import PackPlan, SlurmTask

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


def test_of_a_pack_only_what_has_not_failed_is_begun_again(
    submitted: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A requeued task finds those that failed in its earlier start, and a damaged record."""
    jobs = [submitted(seed) for seed in (1, 2, 3)]
    record_failure(jobs[0].run_dir, "it was made to fail")
    RunDir(jobs[1].run_dir).job.write_text("{")
    begun: list[Any] = []

    class Recorder:
        def __init__(self, slots: Any, jobs: Any, options: LaunchOptions, *_: Any) -> None:
            begun.append((jobs, options.fail_fast))

        def run(self) -> None:
            pass

    monkeypatch.setattr(task, "Pool", Recorder)
    slurm = SlurmTask([str(j.run_dir) for j in jobs], PackPlan(Packing(3), fail_fast=True))
    with pytest.raises(SweepError, match=r"(?s)made to fail.*is damaged"):
        slurm()
    assert begun == [([jobs[2]], True)]


def test_a_job_that_failed_in_a_pack_that_goes_on_is_tried_again(
    submitted: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [submitted(seed) for seed in (1, 2)]
    for job in jobs:
        write_json(RunDir(job.run_dir).queued, {"job_id": "77_1", "jobs": 2})
    record_failure(jobs[0].run_dir, "it was made to fail")
    backend, missed = SlurmBackend(max_num_timeout=2), {job.identity.hash: 0 for job in jobs}
    assert [backend.ended(job, {"77_1"}, missed) for job in jobs] == [True, False]
    executor = Mock()
    executor.submit.return_value.job_id = "78"
    monkeypatch.setattr(backend, "_executor", lambda folder, most: executor)
    monkeypatch.setattr(slurm_launcher, "require_queued_ids", lambda: {"77_1"})
    options = LaunchOptions(jobs[0].run_dir.parent)
    backend._submit(jobs, options, Progress(2, live=False))
    (again,) = executor.submit.call_args.args
    assert again.run_dirs == [str(jobs[0].run_dir)]
    assert [queue_id(job.run_dir) for job in jobs] == ["78", "77_1"]
    assert job_state(jobs[0].run_dir) == JobState.QUEUED


def test_a_job_that_failed_alone_may_still_be_requeued(submitted: Submit) -> None:
    """SLURM preempts it, and kills the command that was to ask for that."""
    job, backend = submitted(1), SlurmBackend()
    write_json(RunDir(job.run_dir).queued, {"job_id": "77_1", "jobs": 1})
    record_failure(job.run_dir, "scontrol requeue died with SIGTERM")
    assert not backend.ended(job, {"77_1"}, {job.identity.hash: 0})
    assert backend.ended(job, set(), {job.identity.hash: 0})
