"""Records that do not read, disks that take nothing, numbers of workers that start none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sizewise.composition.resolvers import exit_on_error
from sizewise.config import PricesConfig
from sizewise.config.register import to_run_config
from sizewise.errors import SweepError
from sizewise.files import write_atomically, write_json
from sizewise.job.execute import Interrupts, execute
from sizewise.job.submit import Job, load_job, submit
from sizewise.record import state as states
from sizewise.record.directories import RunDir
from sizewise.record.outcome import write_outcome
from sizewise.record.state import (
    JobState,
    forget_failure,
    is_done,
    job_state,
    read_failure,
    record_failure,
)
from sizewise.sweep.finish import ReportError, finish
from sizewise.sweep.launch import slurm_launcher
from sizewise.sweep.launch.backend import LaunchOptions
from sizewise.sweep.launch.local_launcher import LocalBackend, available_cores
from sizewise.sweep.launch.progress import Progress
from sizewise.sweep.launch.slurm_launcher import GRACE_POLLS, SlurmBackend
from sizewise.sweep.launch.slurm_queue import queue_reasons
from sizewise.sweep.plan import Plan
from sizewise.sweep.status import sweep_status

from .conftest import TESTS, Submit, run_local
from .fake import make_outcome, trace

Change = Callable[[dict[str, Any]], Any]


def done(job: Job) -> Job:
    write_outcome(make_outcome(to_run_config(job.config, check_types=False), 1.0), job.run_dir)
    return job


CHANGES: tuple[Change, ...] = (
    lambda record: record.pop("model"),
    lambda record: record.update(version=2),
    lambda record: record["base"].update(toy={"scores": {"icd10/exact": "high"}}),
    lambda record: record.update(objective="low"),
    lambda record: record["validation"].update(val_loss=0.5),
    lambda record: record["cost"].update(train_seconds="long"),
    lambda record: record.clear(),
)


def test_a_record_that_does_not_read_is_not_done_and_the_same_command_does_the_job_again(
    tmp_path: Path, submitted: Submit
) -> None:
    whole, *jobs = [done(submitted(seed)) for seed in range(len(CHANGES) + 1)]
    for job, change in zip(jobs, CHANGES, strict=True):
        path = RunDir(job.run_dir).outcome
        record = json.loads(path.read_text())
        change(record)
        path.write_text(json.dumps(record))
        assert (job_state(job.run_dir), is_done(job.run_dir)) == (JobState.WAITING, False)
    run_local([whole, *jobs], tmp_path)
    assert [job_state(job.run_dir) for job in jobs] == [JobState.DONE] * len(jobs)
    assert [len(trace(job.run_dir)) for job in (whole, *jobs)] == [0] + [2] * len(jobs)


def test_a_record_of_thousands_is_read_once(
    submitted: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, read, calls = done(submitted(1)), states.read_outcome, []
    os.utime(job.run_dir / "outcome.json", (1, 1))

    def counted(run_dir: Path, intact: bool) -> Any:
        calls.append(run_dir)
        return read(run_dir, intact)

    monkeypatch.setattr(states, "read_outcome", counted)
    assert all(is_done(job.run_dir) for _ in range(5))
    assert len(calls) == 1
    (job.run_dir / "outcome.json").write_text("{")
    assert not is_done(job.run_dir)


def test_a_damaged_job_file_is_written_anew_by_the_same_command(submitted: Submit) -> None:
    job = submitted(1)
    path = RunDir(job.run_dir).job
    whole = path.read_text()
    for damaged in (
        whole.replace('"seed": 1', '"seed": 2'),
        whole.replace(job.identity.hash, "0"),
        "",
    ):
        path.write_text(damaged)
        with pytest.raises(
            SweepError, match=r"job\.json is damaged\. Start the same command again"
        ):
            load_job(job.run_dir)
        submit(job)
        assert path.read_text() == whole


def test_a_damaged_record_of_a_failure_still_says_that_it_failed(submitted: Submit) -> None:
    job = submitted(1)
    record_failure(job.run_dir, "no memory")
    RunDir(job.run_dir).failure.write_text('{"reasom": "no memory"}')
    failure = read_failure(job.run_dir)
    assert failure is not None
    assert "does not say why" in failure.reason
    assert job_state(job.run_dir) == JobState.FAILED


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_file_that_cannot_be_written_leaves_nothing_beside_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, "before")
    monkeypatch.setattr("sizewise.files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "after")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert path.read_text() == "before"


def test_recording_a_failure_does_not_need_the_disk(
    submitted: Submit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job = submitted(1)
    monkeypatch.setattr("sizewise.files.os.fsync", full)
    record_failure(job.run_dir, "the disk is full")
    assert job_state(job.run_dir) == JobState.FAILED
    failure = read_failure(job.run_dir)
    assert failure is not None
    assert failure.reason == "the disk is full"
    (said,) = caplog.messages
    assert job.run_dir.name in said
    forget_failure(job.run_dir)
    assert job_state(job.run_dir) == JobState.WAITING


FULL_DISK = """
import json, sys
from contextlib import closing
from pathlib import Path
from sizewise.composition.resolvers import exit_on_error
from sizewise.config import PricesConfig
from sizewise.errors import SweepError
from sizewise.job.submit import Job
from sizewise.record.identity import run_identity
from sizewise.sweep.grid import sum_up
from sizewise.sweep.launch.backend import LaunchOptions
from sizewise.sweep.launch.local_launcher import LocalBackend
from sizewise.sweep.launch.slot import Slot
from sizewise.sweep.plan import Plan
from sweep.fake import no_file_grows

spawn = Slot._spawn
Slot._spawn = lambda slot: (spawn(slot), no_file_grows())
folder, *directories = map(Path, sys.argv[1:])
records = [json.loads((run_dir / "job.json").read_text()) for run_dir in directories]
jobs = [
    Job((), record["config"], run_identity(record["config"]), run_dir, record["function"])
    for record, run_dir in zip(records, directories, strict=True)
]
with closing(LocalBackend(n_jobs=1, progress=False)) as backend:
    backend.run(jobs, LaunchOptions(folder))
try:
    sum_up(Plan(folder, "mine", jobs, {}, len(jobs)), "sweep.fake:finish", PricesConfig())
except SweepError as error:
    print(error)
"""


def test_a_sweep_on_a_full_disk_ends_with_its_list_and_goes_on_when_there_is_room(
    tmp_path: Path, submitted: Submit
) -> None:
    """No file may grow in the processes of this sweep: what a full disk does to them."""
    jobs = [done(submitted(1)), *(submitted(n, function="sweep.fake:full_disk") for n in (2, 3))]
    command = [sys.executable, "-c", FULL_DISK, tmp_path, *(job.run_dir for job in jobs)]
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}:{os.environ['PYTHONPATH']}"}
    ended = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "Traceback" not in ended.stderr + ended.stdout, ended.stderr
    assert "2 of 3 jobs have no result" in ended.stdout
    for job in jobs[1:]:
        (line,) = [
            ln for ln in ended.stdout.splitlines() if ln.strip().startswith(job.run_dir.name)
        ]
        assert "File too large" in line
    assert not list(tmp_path.rglob("*.tmp"))
    (tmp_path / "repaired").touch()
    run_local(jobs, tmp_path)
    assert [job_state(job.run_dir) for job in jobs] == [JobState.DONE] * 3


def test_a_disk_that_is_full_before_a_job_begins_is_one_message(
    submitted: Submit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = submitted(1)
    RunDir(job.run_dir).job.unlink()
    monkeypatch.setattr("sizewise.files.os.fsync", full)
    with pytest.raises(SystemExit), exit_on_error():
        submit(job)
    said = capsys.readouterr().err
    assert said.startswith("sizewise: [Errno 28] No space left on device. Nothing is lost")


def test_a_report_that_no_disk_takes_is_one_message(
    tmp_path: Path, submitted: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(tmp_path, "mine", [done(submitted(1))], {}, 1)
    monkeypatch.setattr("sizewise.files.os.fsync", full)
    with pytest.raises(ReportError, match="The report could not be made: OSError"):
        finish(plan, "sweep.fake:finish", PricesConfig())


def test_minus_one_job_at_once_means_all_cores_and_other_numbers_below_one_are_refused() -> None:
    assert LocalBackend(n_jobs=-1, gpus=[]).slots == available_cores()
    for name, value in (("n_jobs", 0), ("n_jobs", -2), ("threads", 0), ("threads", -1)):
        with pytest.raises(SweepError, match=rf"hydra\.launcher\.{name}={value} lets nothing run"):
            LocalBackend(**{name: value})
    with pytest.raises(SweepError, match="poll_seconds"):
        SlurmBackend(poll_seconds=-1.0)


def test_a_cancelled_slurm_job_is_cancelled_and_no_error_of_its_own(
    submitted: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fit that SIGTERM stopped has saved its state, and leaves with that signal's exit code."""
    job = submitted(1)

    def stopped(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    monkeypatch.setattr("sizewise.job.execute.load_job", lambda run_dir: (None, stopped))
    with pytest.raises(KeyboardInterrupt):
        execute(job.run_dir, Interrupts(enabled=False))
    assert (job_state(job.run_dir), read_failure(job.run_dir)) == (JobState.INTERRUPTED, None)
    write_json(RunDir(job.run_dir).queued, {"job_id": "77_1"})
    monkeypatch.setattr(slurm_launcher, "job_end", lambda job_id: "CANCELLED by 0")
    backend, missed = SlurmBackend(), {job.identity.hash: 0}
    assert [backend.ended(job, set(), missed) for _ in range(GRACE_POLLS)][-1]
    failure = read_failure(job.run_dir)
    assert failure is not None
    assert failure.reason == "SLURM job 77_1 was cancelled without a result"


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ``squeue`` whose answer is a file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "squeue").write_text(f"#!/bin/sh\ncat {folder}/answer\n")
    (folder / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder / "answer"


def test_a_job_that_slurm_holds_is_said_and_not_waited_for_without_a_word(
    tmp_path: Path,
    submitted: Submit,
    squeue: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """SLURM requeues and holds a job whose node went down at its start."""
    job, other = submitted(1), submitted(2)
    for each, job_id in ((job, "77_0"), (other, "77_1")):
        write_json(RunDir(each.run_dir).queued, {"job_id": job_id})
    squeue.write_text("77_0|launch failed requeued held\n77_1|Priority\n")
    assert queue_reasons() == {"77_0": "launch failed requeued held", "77_1": "Priority"}
    notes = {row.slug: row.note for row in sweep_status(tmp_path)}
    assert notes[job.identity.slug] == "SLURM: launch failed requeued held"
    assert notes[other.identity.slug] == ""
    polls: list[float] = []

    def sleep(seconds: float) -> None:
        polls.append(seconds)
        if len(polls) == 3:
            done(job)
            done(other)

    monkeypatch.setattr(slurm_launcher, "time", type("Clock", (), {"sleep": staticmethod(sleep)}))
    with Progress(2, live=False) as progress:
        SlurmBackend().wait_for([job, other], LaunchOptions(tmp_path), progress, True)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("held")]
    assert len(said) == 1
    assert "(launch failed requeued held)" in said[0]
    assert "scontrol release 77_0" in said[0]
