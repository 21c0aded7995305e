"""The pool of workers, with jobs that end in every way a job can end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from sizewise.config import RunConfig
from sizewise.config.evaluation import EvaluationConfig
from sizewise.errors import SweepError
from sizewise.job.execute import WORKER_MODULE, worker_arguments
from sizewise.record.claims import attempts, try_claim
from sizewise.record.outcome import write_outcome
from sizewise.record.state import JobState, job_state, read_failure
from sizewise.sweep.launch.backend import LaunchOptions
from sizewise.sweep.launch.local_launcher import LocalBackend, Pool
from sizewise.sweep.launch.progress import Progress
from sizewise.sweep.launch.slot import Slot

from .conftest import Submit, run_local
from .fake import EXITS, KILLED, RAISES, make_outcome, trace


def states(*jobs: object) -> list[JobState]:
    return [job_state(job.run_dir) for job in jobs]  # type: ignore[attr-defined]


def test_a_failure_of_any_kind_is_its_own_jobs_only(tmp_path: Path, submitted: Submit) -> None:
    jobs = [submitted(seed) for seed in (1, RAISES, 2, EXITS, KILLED, 3)]
    run_local(jobs, tmp_path, n_jobs=2)
    done, failed = JobState.DONE, JobState.FAILED
    assert states(*jobs) == [done, failed, done, failed, failed, done]
    raised, exited, killed = (read_failure(jobs[index].run_dir) for index in (1, 3, 4))
    assert raised is not None
    assert exited is not None
    assert killed is not None
    assert raised.reason == "ValueError: this job was made to fail"
    assert (exited.exit_code, killed.signal) == (3, "SIGKILL")
    log = Path(raised.log).read_text()
    assert "Traceback" in log
    assert f"job {jobs[1].run_dir.name}" in log, "the job's own output is missing"
    assert "SIGKILL" in Path(killed.log).read_text()


def test_the_next_start_runs_only_what_failed(tmp_path: Path, submitted: Submit) -> None:
    jobs = [submitted(seed) for seed in (1, RAISES, EXITS)]
    with closing(LocalBackend()) as backend:
        backend.run(jobs, LaunchOptions(tmp_path))
        (tmp_path / "repaired").touch()
        backend.run(jobs, LaunchOptions(tmp_path))
    assert states(*jobs) == [JobState.DONE] * 3
    assert [len(trace(job.run_dir)) for job in jobs] == [2, 3, 3]
    assert not (jobs[1].run_dir / "failed.json").exists()


def test_retries_begin_a_failed_job_again(tmp_path: Path, submitted: Submit) -> None:
    job = submitted(RAISES)
    run_local([job], tmp_path, retries=2)
    assert attempts(job.run_dir) == 3
    failure = read_failure(job.run_dir)
    assert failure is not None
    assert failure.attempt == 3


def test_fail_fast_leaves_the_rest_waiting(tmp_path: Path, submitted: Submit) -> None:
    jobs = [submitted(RAISES), *(submitted(seed) for seed in range(4))]
    run_local(jobs, tmp_path, fail_fast=True)
    assert states(*jobs) == [JobState.FAILED] + [JobState.WAITING] * 4


def test_each_gpu_takes_one_job_at_a_time(
    tmp_path: Path, submitted: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.setenv("FAKE_SECONDS", "0.1")
    jobs = [submitted(seed) for seed in range(4)]
    with closing(LocalBackend()) as backend:
        assert backend.slots == 2
        backend.run(jobs, LaunchOptions(tmp_path))
    begins = [trace(job.run_dir)[0] for job in jobs]
    assert {begin["cuda"] for begin in begins} == {"4", "7"}
    by_process = {(begin["pid"], begin["cuda"]) for begin in begins}
    assert len(by_process) == 2, "a worker's device changed, or workers were not kept"


def test_stages_that_want_other_devices_get_other_workers(
    tmp_path: Path, submitted: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No two jobs are on one GPU, and none on fewer than it asks for."""
    monkeypatch.setenv("FAKE_SECONDS", "0.1")
    seeds = iter(range(100))
    with closing(LocalBackend(gpus=["0", "1", "2", "3"])) as backend:
        for trainer, count, seen in (
            ({"devices": 1}, 4, {"0", "1", "2", "3"}),
            ({"devices": 2}, 4, {"0,1", "2,3"}),
            ({"accelerator": "cpu"}, 1, {""}),
            ({"devices": 1}, 4, {"0", "1", "2", "3"}),
        ):
            jobs = [submitted(next(seeds)) for _ in range(count)]
            for job in jobs:
                job.config["trainer"].update(trainer)
            backend.run(jobs, LaunchOptions(tmp_path))
            assert {trace(job.run_dir)[0]["cuda"] for job in jobs} == seen


def test_more_devices_than_there_are_is_refused(submitted: Submit) -> None:
    job = submitted(1)
    job.config["trainer"]["devices"] = 3
    with pytest.raises(SweepError, match=r"trainer\.devices=3, but only 2 GPUs"):
        LocalBackend(gpus=["0", "1"]).check([job])


def test_a_worker_keeps_to_a_base_while_it_has_jobs(tmp_path: Path, submitted: Submit) -> None:
    jobs = [submitted(seed, model) for seed in range(3) for model in ("a", "b")]
    run_local(jobs, tmp_path, n_jobs=2)
    pids = {
        model: {
            trace(job.run_dir)[0]["pid"] for job in jobs if job.config["model"]["name"] == model
        }
        for model in ("a", "b")
    }
    assert sum(len(found) for found in pids.values()) <= 3


def test_fifty_jobs_end_with_the_memory_of_the_first(tmp_path: Path, submitted: Submit) -> None:
    jobs = [submitted(seed, function="sweep.memory:job") for seed in range(50)]
    run_local(jobs, tmp_path)
    figures = [json.loads((job.run_dir / "memory.json").read_text()) for job in jobs]
    assert len({figure["pid"] for figure in figures}) == 1
    assert len({figure["random"] for figure in figures}) == 1, "random state leaks"
    assert not any(figure["leaked"] for figure in figures), "environment leaks"
    # Jobs that kept their ballast would add 49 MB by the last one.
    assert figures[-1]["resident"] < figures[0]["resident"] + 20_000_000
    # The first job alone is large: its peak must not be the later ones'.
    assert figures[0]["peak"] > figures[1]["peak"] + 30_000_000


def test_a_stopped_worker_leaves_a_job_that_can_be_resumed(
    tmp_path: Path, submitted: Submit
) -> None:
    job = submitted(1)
    with subprocess.Popen(
        [sys.executable, "-m", WORKER_MODULE, *worker_arguments()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "FAKE_SECONDS": "600"},
    ) as worker:
        assert worker.stdin is not None
        worker.stdin.write(json.dumps({"run_dirs": [str(job.run_dir)]}) + "\n")
        worker.stdin.flush()
        from tests.waiting import wait_for

        wait_for(lambda: trace(job.run_dir))
        assert job_state(job.run_dir) == JobState.RUNNING
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(120) == 130
    assert job_state(job.run_dir) == JobState.INTERRUPTED
    assert read_failure(job.run_dir) is None
    run_local([job], tmp_path)
    assert job_state(job.run_dir) == JobState.DONE


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a parent's death")
def test_a_worker_whose_pool_died_before_it_looked_takes_no_job(submitted: Submit) -> None:
    job = submitted(1)
    ended = subprocess.run(
        [sys.executable, "-m", WORKER_MODULE, "--parent", str(os.getppid())],
        input=json.dumps({"run_dirs": [str(job.run_dir)]}) + "\n",
        text=True,
        check=False,
    )
    assert ended.returncode == 128 + signal.SIGTERM
    assert job_state(job.run_dir) == JobState.WAITING
    assert trace(job.run_dir) == []


def test_a_job_that_another_process_took_over_is_waited_for(
    tmp_path: Path, submitted: Submit
) -> None:
    job = submitted(1)
    claim = try_claim(job.run_dir)
    assert claim is not None
    pool = Pool([], [job], LaunchOptions(tmp_path), Progress(1, live=False))
    pool.ended(Slot(0, None, 1), job, 130)
    assert read_failure(job.run_dir) is None, "another process's job was called failed"
    assert pool.elsewhere == [job]
    claim.release("interrupted")
    pool.look_elsewhere()
    assert list(pool.waiting) == [job, job]


@pytest.mark.parametrize("text", ["", "{", '{"version": 1'])
def test_a_truncated_outcome_is_not_done(tmp_path: Path, submitted: Submit, text: str) -> None:
    job = submitted(1)
    (job.run_dir / "outcome.json").write_text(text)
    assert job_state(job.run_dir) == JobState.WAITING
    run_local([job], tmp_path)
    assert job_state(job.run_dir) == JobState.DONE


@pytest.mark.parametrize(
    ("ignored", "patience", "ended_by"),
    [("SIGUSR1", [0.01, 120], "SIGTERM"), ("SIGTERM", [0.01, 0.01, 120], "SIGKILL")],
)
def test_a_worker_that_hangs_at_its_exit_is_ended(
    monkeypatch: pytest.MonkeyPatch, ignored: str, patience: list[float], ended_by: str
) -> None:
    hangs = f"import signal as s, time; s.signal(s.{ignored}, s.SIG_IGN); print(); time.sleep(600)"
    process = subprocess.Popen(
        [sys.executable, "-uc", hangs], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    wait, waits = process.wait, iter(patience)
    monkeypatch.setattr(process, "wait", lambda *_: wait(next(waits)))
    slot = Slot(0, None, 1, process=process)
    slot.close()
    assert slot.process is None
    assert process.returncode == -signal.Signals[ended_by]


@pytest.mark.parametrize(
    ("objective", "said"),
    [("val_loss", "validation loss 9.431"), ("primary", "exact (ICD-10) on validation 9.431")],
)
def test_the_number_of_a_job_that_ended_has_a_name(
    submitted: Submit, capsys: pytest.CaptureFixture[str], objective: str, said: str
) -> None:
    job = submitted(1)
    cfg = RunConfig(evaluation=EvaluationConfig(objective=objective))
    write_outcome(make_outcome(cfg, 9.4312), job.run_dir)
    Progress(1, live=False).end(None, job)
    assert capsys.readouterr().err.strip() == f"[1/1] {job.identity.slug}: done, {said}"


def test_a_job_that_goes_on_from_a_rung_is_counted_once(
    submitted: Submit, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last line says as many jobs as the plan has, however often each was begun."""
    first, second, later = (submitted(seed) for seed in (1, 2, 3))
    progress = Progress(2, live=False)
    progress.end(None, first)
    progress.add([later, first])
    for job in (second, later, first):
        progress.end(None, job)
    counts = [line.split()[0] for line in capsys.readouterr().err.splitlines()]
    assert counts == ["[1/2]", "[1/3]", "[2/3]", "[3/3]"]
