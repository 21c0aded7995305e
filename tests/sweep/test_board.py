"""The board of a running sweep, read from its directory alone."""

from __future__ import annotations

import errno
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sizewise.config import to_run_config
from sizewise.errors import SweepError
from sizewise.files import write_json
from sizewise.job.submit import Job
from sizewise.record import claims
from sizewise.record.claims import seconds_worked, try_claim
from sizewise.record.outcome import write_outcome
from sizewise.record.progress import Stand
from sizewise.record.state import JobState, record_failure
from sizewise.sweep import board as board_module
from sizewise.sweep.board import board_lines, board_rows, board_view, read_board
from sizewise.sweep.launch import progress as progress_module
from sizewise.sweep.launch.progress import Progress
from sizewise.sweep.status import print_status, watch

from .conftest import Submit
from .fake import make_outcome


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


Claimed = Callable[[Job], float]


@pytest.fixture
def claimed() -> Iterator[Claimed]:
    """Let this process work on a job; return since when."""
    with ExitStack() as stack:

        def claim(job: Job) -> float:
            held = try_claim(job.run_dir)
            assert held is not None
            stack.enter_context(held)
            assert held.owner.at is not None
            return held.owner.at

        yield claim


def stand(job: Job, done: int, of: int, since: float, now: float, what: str = "") -> None:
    found = Stand("answers" if what else "training", what, done, of, 0, since, now)
    write_json(job.run_dir / "progress.json", vars(found))


def logged(job: Job, *values: dict[str, float]) -> None:
    lines = [{"step": 10 * i, "time": 1.0, "values": each} for i, each in enumerate(values)]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (job.run_dir / "metrics.jsonl").write_text(text + '{"step": 99, "val')


def done(job: Job, seconds: float) -> None:
    """Plant a job that is done and took so long."""
    write_outcome(make_outcome(to_run_config(job.config, check_types=False), 1.0), job.run_dir)
    claim = {"token": "t", "host": "h", "machine": "m", "pid": 1, "started": "1"}
    times = {"at": 100.0, "ended": 100.0 + seconds, "released": "done"}
    write_json(job.run_dir / ".claims" / "000001.json", {**claim, **times})


def test_a_running_job_shows_step_loss_learning_speed_and_seconds_left(
    tmp_path: Path, submitted: Submit, claimed: Claimed
) -> None:
    job, other = submitted(1), submitted(2)
    began = claimed(job)
    stand(job, 30, 120, began, began + 30)
    logged(job, {"val_loss": 2.0}, {"train_loss": 1.25, "lr": 0.002})
    board = read_board(tmp_path, began + 40)
    (line,) = board.running
    assert (line.name, line.worker) == (job.identity.slug, f"{os.uname().nodename}:{os.getpid()}")
    assert str(line.stand) == "training: 30 of 120"
    assert line.figures == {"val_loss": 2.0, "train_loss": 1.25, "lr": 0.002}
    assert line.seconds == pytest.approx(40)
    assert line.left == pytest.approx(80), "90 steps at one a second, said ten seconds ago"
    assert dict(board.counts) == {JobState.RUNNING: 1, JobState.WAITING: 1}
    assert board.left is None, "nothing is known of the job that waits"
    row = board_rows(board)[0]
    assert row[:8] == (
        job.identity.slug, "training", "30/120", "1.25", "2", "0.002", "0:40", "1:20",
    )  # fmt: skip
    assert other.identity.slug not in {line.name for line in board.running}


def test_every_worker_and_the_whole_have_an_estimate_of_the_time_left(
    tmp_path: Path, submitted: Submit, claimed: Claimed, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [submitted(seed) for seed in range(1, 7)]
    done(jobs[0], 60.0)
    began = 0.0
    for number, job in enumerate(jobs[1:3]):
        monkeypatch.setenv("SLURM_JOB_ID", str(number))
        began = max(began, claimed(job))
    board = read_board(tmp_path, began + 20)
    # Like the one that is done, each takes a minute: 40 s left for two, then three more of 60.
    assert [round(worker.left or 0) for worker in board.workers] == [160, 100]
    assert board.left == pytest.approx(160, abs=1)
    assert board.title == "1 of 6 jobs ended (1 done, 2 running, 3 waiting); about 2:40 left"


def test_the_jobs_of_a_pack_have_one_worker_that_is_free_after_the_last(
    tmp_path: Path, submitted: Submit, claimed: Claimed
) -> None:
    jobs = [submitted(seed) for seed in range(1, 8)]
    done(jobs[0], 60.0)
    began = max(claimed(job) for job in jobs[1:4])
    board = read_board(tmp_path, began + 20)
    assert len(board.running) == 3
    (worker,) = board.workers
    assert set(worker.jobs) == {job.identity.slug for job in jobs[1:4]}
    assert worker.left == pytest.approx(100, abs=1), "40 s for the pack, then three more of 60"
    assert {row[-1].rpartition(" ")[2] for row in board_rows(board)} == {"1:40"}


def test_what_was_planned_is_taken_at_the_pace_so_far(
    tmp_path: Path, submitted: Submit, claimed: Claimed
) -> None:
    jobs = [submitted(seed) for seed in (1, 2, 3)]
    done(jobs[0], 20.0)
    names = [job.identity.slug for job in jobs]
    planned = {"jobs": dict(zip(names, (10.0, 30.0, 50.0), strict=True)), "later": [5.0]}
    write_json(tmp_path / "sweep.json", {"jobs": names, "estimate": planned})
    began = claimed(jobs[1])
    board = read_board(tmp_path, began + 15)
    # The first took twice as long as planned: 60 - 15 s, then 100, and 10 of a job to come.
    assert board.left == pytest.approx(45 + 100 + 10, abs=0.1)


def test_answers_and_what_an_earlier_attempt_left(
    tmp_path: Path, submitted: Submit, claimed: Claimed
) -> None:
    job = submitted(1)
    began = claimed(job)
    stand(job, 5, 10, began - 60, began - 50)
    assert read_board(tmp_path, began + 1).running[0].stand is None, "of an attempt that is over"
    stand(job, 5, 10, began, began + 50, "tuned.toy")
    assert board_rows(read_board(tmp_path, began + 50))[0][1:3] == ("answers tuned.toy", "5/10")


def test_in_a_log_every_running_job_has_a_line_a_minute(
    tmp_path: Path, submitted: Submit, claimed: Claimed, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [submitted(1), submitted(2)]
    began, _ = map(claimed, jobs)
    stand(jobs[0], 30, 120, began, began + 30)
    logged(jobs[0], {"train_loss": 1.25})
    clock = Clock(0.0)
    with Progress(2, live=False, sweep_dir=tmp_path, clock=clock) as progress:
        for _ in range(601):  # five minutes, asked twice a second
            progress.refresh()
            clock.now += 0.5
    said = capsys.readouterr().err.splitlines()
    for job in jobs:
        assert sum(f"running {job.identity.slug}: " in line for line in said) == 5
    assert "training: 30 of 120" in said[0]
    assert said[0].endswith("train_loss 1.25")
    assert "0 of 2 jobs ended (2 running)" in said[2]


def test_on_a_terminal_there_is_one_board(
    tmp_path: Path, submitted: Submit, claimed: Claimed
) -> None:
    job = submitted(1)
    claimed(job)
    failed = submitted(2)
    record_failure(failed.run_dir, "ValueError: [/b] no")
    console = Console(width=200, record=True, force_terminal=True)
    console.print(board_view(read_board(tmp_path)))
    shown = console.export_text()
    assert "1 of 2 jobs ended (1 running, 1 failed)" in shown
    assert job.identity.slug in shown
    assert "ValueError: [/b] no" in shown


def test_status_shows_the_same_board_above_all_jobs(
    tmp_path: Path, submitted: Submit, claimed: Claimed, capsys: pytest.CaptureFixture[str]
) -> None:
    job, other = submitted(1), submitted(2)
    began = claimed(job)
    stand(job, 30, 120, began, began + 30)
    print_status(tmp_path)
    said = capsys.readouterr().out
    assert "0 of 2 jobs ended (1 running, 1 waiting)" in said
    assert said.index("30/120") < said.index(other.identity.slug)


def test_it_is_watched_until_nobody_works_on_it_any_more(
    tmp_path: Path, submitted: Submit, capsys: pytest.CaptureFixture[str]
) -> None:
    job = submitted(1)
    held = try_claim(job.run_dir)
    assert held is not None
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        held.release("done")
        done(job, 3.0)

    watch(tmp_path, sleep=sleep)
    said = capsys.readouterr().out
    assert slept == [60.0], "a line a minute in a file"
    assert "0 of 1 job ended (1 running)" in said
    assert "1 of 1 job ended (1 done)" in said


def test_a_single_run_has_a_board_and_an_empty_folder_has_none(
    tmp_path: Path, submitted: Submit, claimed: Claimed
) -> None:
    job = submitted(1)
    claimed(job)
    assert [line.name for line in read_board(job.run_dir).running] == [job.identity.slug]
    (tmp_path / "empty").mkdir()
    with pytest.raises(SweepError, match="holds no sweep and no run"):
        read_board(tmp_path / "empty")


def test_seconds_of_all_attempts_count(tmp_path: Path, submitted: Submit) -> None:
    job = submitted(1)
    done(job, 7.0)
    held = try_claim(job.run_dir)
    assert held is not None
    began = held.owner.at or 0.0
    assert seconds_worked(job.run_dir, began + 5, held=True) == pytest.approx(12)
    held.release("interrupted")
    assert 7 <= seconds_worked(job.run_dir, began + 99, held=False) < 20, "given up at once"


class Passing:
    """Reads boards, but the first looks meet an error of the disk."""

    def __init__(self, errors: int) -> None:
        self.errors = errors

    def __call__(self, *args: Any, **more: Any) -> Any:
        self.errors -= 1
        if self.errors >= 0:
            raise OSError(errno.EIO, "Input/output error")
        return read_board(*args, **more)


def test_a_passing_error_of_the_disk_is_said_once_and_ends_no_launcher(
    tmp_path: Path,
    submitted: Submit,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    submitted(1)
    monkeypatch.setattr(progress_module, "read_board", Passing(3))
    clock = Clock(0.0)
    with (
        caplog.at_level(logging.WARNING),
        Progress(1, live=False, sweep_dir=tmp_path, clock=clock) as progress,
    ):
        for _ in range(5):
            clock.now += 60
            progress.refresh()
    assert [message for message in caplog.messages if "cannot be shown" in message] == [
        "The jobs cannot be shown just now (OSError: [Errno 5] Input/output error); trying again."
    ]
    assert capsys.readouterr().err.count("0 of 1 job ended") == 2, "from then on it is shown"


def test_status_is_watched_on_after_a_passing_error(
    tmp_path: Path,
    submitted: Submit,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    done(submitted(1), 3.0)
    monkeypatch.setattr("sizewise.sweep.status.read_board", Passing(2))
    watch(tmp_path, sleep=lambda _: None)
    assert "1 of 1 job ended (1 done)" in capsys.readouterr().out


def endless_progress(job: Job) -> None:
    now = time.time() + 1
    text = json.dumps(vars(Stand("training", "", 1, 9, 0, now, now)))
    (job.run_dir / "progress.json").write_text(text.replace(str(now), "-Infinity", 1))


def endless_plan(job: Job) -> None:
    planned = f'{{"jobs": [], "estimate": {{"jobs": {{"{job.identity.slug}": Infinity}}}}}}'
    (job.run_dir.parent / "sweep.json").write_text(planned)


def claim_at(job: Job, when: Any) -> None:
    path = max((job.run_dir / ".claims").glob("*.json"))
    write_json(path, {**json.loads(path.read_text()), "at": when})


def claim_at_noon(job: Job) -> None:
    claim_at(job, "noon")
    stand(job, 1, 2, time.time(), time.time())


def failed_without_a_reason(job: Job) -> None:
    record_failure(job.run_dir.with_name("failed"), "")
    write_json(job.run_dir.with_name("failed") / "job.json", {})


@pytest.mark.parametrize(
    "damage", [endless_progress, endless_plan, claim_at_noon, failed_without_a_reason]
)
def test_what_no_process_of_ours_writes_breaks_no_board(
    tmp_path: Path, submitted: Submit, claimed: Claimed, damage: Callable[[Job], None]
) -> None:
    job = submitted(1)
    claimed(job)
    damage(job)
    board = read_board(tmp_path)
    Console(quiet=True).print(board_view(board))
    assert board_lines(board)[0].startswith(f"running {job.identity.slug}: ")
    assert print_status(tmp_path)


def test_a_run_that_is_removed_while_it_is_looked_at_has_no_seconds(
    tmp_path: Path, submitted: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submitted(1)
    held = try_claim(job.run_dir)
    assert held is not None
    held.release("interrupted")
    record = json.loads(held.path.read_text())
    del record["ended"]
    monkeypatch.setattr(claims, "read_json", lambda path: path.unlink() or record)
    assert seconds_worked(job.run_dir, 0.0, held=False) == 0.0


def test_a_slow_disk_is_looked_at_a_small_part_of_the_time(
    tmp_path: Path, submitted: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(1)
    slept: list[float] = []

    def slow(*args: Any) -> Any:
        time.sleep(0.25)
        return read_board(*args)

    monkeypatch.setattr("sizewise.sweep.status.read_board", slow)
    watch(tmp_path, sleep=slept.append)
    assert min(slept) > 0.25 / board_module.SHARE_OF_TIME - 0.1


def test_an_owner_on_another_machine_is_looked_up_once_per_look(
    tmp_path: Path, submitted: Submit, claimed: Claimed, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed(submitted(1))
    probes: list[Path] = []
    real = claims._server_time
    monkeypatch.setattr(claims, "machine_id", lambda: "another")
    monkeypatch.setattr(claims, "_server_time", lambda at: probes.append(at) or real(at))
    assert len(read_board(tmp_path).running) == 1
    assert len(probes) == 1
