"""Launchers whose jobs turn out to be another sweep's at this moment: they wait for them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sizewise.config.register import to_run_config
from sizewise.files import write_json
from sizewise.job.submit import Job
from sizewise.record.claims import Claim, this_process, try_claim
from sizewise.record.directories import RunDir
from sizewise.record.outcome import write_outcome
from sizewise.record.state import JobState, job_state, read_failure, record_failure
from sizewise.sweep.launch import ray_launcher
from sizewise.sweep.launch.backend import LaunchOptions
from sizewise.sweep.launch.local_launcher import Pool
from sizewise.sweep.launch.packing import ALONE
from sizewise.sweep.launch.progress import Progress
from sizewise.sweep.launch.ray_launcher import _Tasks
from sizewise.sweep.launch.slot import Slot
from sizewise.sweep.launch.slurm_launcher import GRACE_POLLS, SlurmBackend
from sizewise.sweep.launch.task import PackPlan

from .conftest import Submit
from .fake import make_outcome


class Ray:
    """Runs a task at once; every task is itself the function that ``remote`` is given."""

    class exceptions:  # noqa: N801 — as in ray
        RayError = RuntimeError

    def __init__(self, begin: Callable[[int], None], dies_with: int = 0) -> None:
        self.begun, self._begin, self._dies_with = 0, begin, dies_with
        self.asked: list[list[str]] = []

    def remote(self, run_dirs: list[str], plan: PackPlan) -> int:
        self.begun += 1
        self.asked.append(run_dirs)
        self._begin(self.begun)
        return self.begun

    def wait(self, references: list[int], timeout: float) -> tuple[list[int], list[int]]:
        return references, []

    def get(self, reference: int) -> None:
        if len(self.asked[reference - 1]) == self._dies_with:
            raise self.exceptions.RayError("the worker died")


def run_in(ray: Any, packs: list[list[Job]], options: LaunchOptions) -> None:
    jobs = sum(map(len, packs))
    _Tasks(ray, ray, ALONE, options, Progress(jobs, live=False)).run(packs)


def held(job: Job) -> Claim:
    claim = try_claim(job.run_dir)
    assert claim is not None
    return claim


def done(job: Job) -> None:
    write_outcome(make_outcome(to_run_config(job.config, check_types=False), 1.0), job.run_dir)


def test_ray_begins_a_job_again_when_whoever_had_it_is_gone(
    tmp_path: Path, submitted: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submitted(1)
    claim = held(job)
    monkeypatch.setattr(ray_launcher.time, "sleep", lambda _: claim.release("interrupted"))
    ray: Any = Ray(lambda number: done(job) if number == 2 else None)
    run_in(ray, [[job]], LaunchOptions(tmp_path))
    assert (ray.begun, job_state(job.run_dir)) == (2, JobState.DONE)


def test_a_second_launcher_says_who_holds_a_job_and_not_that_it_starts(
    tmp_path: Path,
    submitted: Submit,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job, other = submitted(1), submitted(2)
    claim = held(job)
    who = f"held    {job.identity.slug} by process {os.getpid()} on {socket.gethostname()}"
    pool = Pool([], [job, other], LaunchOptions(tmp_path), Progress(2, live=False))
    begun: list[Job] = []
    monkeypatch.setattr(pool, "_begin", lambda slot, jobs: begun.extend(jobs))
    pool.begin_next(Slot(0, None, 1))
    assert (begun, pool.elsewhere) == ([other], [job])
    assert capsys.readouterr().err == f"{who}: waiting for it\n"
    monkeypatch.setattr(ray_launcher.time, "sleep", lambda _: done(job))
    ray: Any = Ray(lambda number: None)
    run_in(ray, [[job]], LaunchOptions(tmp_path))
    claim.release("done")
    said = capsys.readouterr().err
    assert said.startswith(who)
    assert "start" not in said


@pytest.mark.parametrize("retries", [0, 2])
def test_a_job_that_fails_elsewhere_is_reported_and_not_begun(
    tmp_path: Path,
    submitted: Submit,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    retries: int,
) -> None:
    """By Ray as by the pool of this machine: whoever had it has tried as often as was asked."""
    job = submitted(1)
    claim = held(job)

    def fail(_: float) -> None:
        record_failure(job.run_dir, "it broke")
        claim.release("failed")

    monkeypatch.setattr(ray_launcher.time, "sleep", fail)
    ray: Any = Ray(lambda number: None)
    options = LaunchOptions(tmp_path, retries=retries)
    run_in(ray, [[job]], options)
    pool = Pool([], [], options, Progress(1, live=False))
    pool.elsewhere.append(job)
    pool.look_elsewhere()
    assert (ray.begun, len(pool.waiting)) == (0, 0)
    assert capsys.readouterr().err.count("failed: it broke") == 2


def test_ray_waits_for_a_job_that_another_sweep_ends(
    tmp_path: Path, submitted: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submitted(1)
    claim = held(job)
    monkeypatch.setattr(ray_launcher.time, "sleep", lambda _: done(job))
    ray: Any = Ray(lambda number: None)
    run_in(ray, [[job]], LaunchOptions(tmp_path))
    assert (ray.begun, job_state(job.run_dir)) == (0, JobState.DONE)
    claim.release("done")


def test_where_the_task_of_a_pack_dies_what_is_left_of_it_goes_alone(
    tmp_path: Path, submitted: Submit
) -> None:
    jobs = [submitted(seed) for seed in (1, 2, 3)]
    one, two, three = (str(job.run_dir) for job in jobs)
    ray = Ray(lambda number: done(jobs[number - 1]), dies_with=3)
    run_in(ray, [jobs], LaunchOptions(tmp_path))
    assert ray.asked == [[one, two, three], [two], [three]]
    assert {job_state(job.run_dir) for job in jobs} == {JobState.DONE}


def test_slurm_does_not_call_a_job_failed_that_another_process_has(submitted: Submit) -> None:
    job, backend = submitted(1), SlurmBackend()
    write_json(RunDir(job.run_dir).queued, {"job_id": "77_1"})
    claim, missed = held(job), {job.identity.hash: 0}
    for _ in range(GRACE_POLLS + 1):
        assert not backend.ended(job, set(), missed)
    assert read_failure(job.run_dir) is None
    claim.release("interrupted")
    assert [backend.ended(job, set(), missed) for _ in range(GRACE_POLLS)][-1]


def test_slurm_calls_its_own_dead_job_failed_at_once(
    submitted: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed on another node it seems to be at work until its claim is old."""
    job, backend = submitted(1), SlurmBackend()
    write_json(RunDir(job.run_dir).queued, {"job_id": "77_1"})
    owner = replace(this_process(), machine="another", queue_job="77_1")
    monkeypatch.setattr("sizewise.record.claims.this_process", lambda: owner)
    claim, missed = held(job), {job.identity.hash: 0}
    assert [backend.ended(job, set(), missed) for _ in range(GRACE_POLLS)][-1]
    assert read_failure(job.run_dir) is not None
    claim.release("failed")
