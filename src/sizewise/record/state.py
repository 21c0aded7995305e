"""The state of a job, read from the files in its directory and from nothing else."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from sizewise.errors import OutcomeError
from sizewise.files import read_json, tail, write_json
from sizewise.record.claims import attempts, holder
from sizewise.record.directories import RunDir
from sizewise.record.outcome import Outcome, read_outcome

TAIL_LINES = 30


class JobState(StrEnum):
    """What has become of a job. ``interrupted``: begun, and nobody works on it any more."""

    DONE = "done"
    RUNNING = "running"
    FAILED = "failed"
    PRUNED = "pruned"
    INTERRUPTED = "interrupted"
    QUEUED = "queued"
    WAITING = "waiting"


@dataclass(frozen=True)
class JobFailure:
    """A job that failed: ``reason`` is one line, ``log`` the file with the whole story."""

    run_dir: str
    reason: str
    log: str
    attempt: int = 1
    exit_code: int | None = None
    signal: str | None = None
    traceback: str | None = None


def finished(run_dir: Path) -> Outcome | None:
    """Return the outcome of a run that is done; a torn or foreign record is not done."""
    if not RunDir(run_dir).outcome.is_file():
        return None
    try:
        return read_outcome(run_dir)
    except OutcomeError:
        return None


def is_done(run_dir: Path) -> bool:
    """Whether the run has a whole outcome record (cheaper than reading its fields)."""
    try:
        return "objective" in json.loads(RunDir(run_dir).outcome.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return False


def job_state(run_dir: Path) -> JobState:
    """Tell the state of the job in ``run_dir``; a dead worker's job is not running."""
    if is_done(run_dir):
        return JobState.DONE
    if holder(run_dir):
        return JobState.RUNNING
    if RunDir(run_dir).pruned.exists():
        return JobState.PRUNED
    if RunDir(run_dir).failure.exists():
        return JobState.FAILED
    if RunDir(run_dir).queued.exists():
        return JobState.QUEUED
    return JobState.INTERRUPTED if attempts(run_dir) else JobState.WAITING


def record_failure(
    run_dir: Path,
    reason: str,
    *,
    traceback: str | None = None,
    returncode: int | None = None,
) -> JobFailure:
    """Write why the job in ``run_dir`` failed, as a record and into its log.

    ``returncode`` is that of a process that died, negative for a signal.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    name = signal.Signals(-returncode).name if returncode is not None and returncode < 0 else None
    failure = JobFailure(
        run_dir=str(run_dir),
        reason=reason,
        log=str(RunDir(run_dir).log),
        attempt=max(1, attempts(run_dir)),
        exit_code=returncode if name is None else None,
        signal=name,
        traceback=traceback or "\n".join(tail(RunDir(run_dir).log, TAIL_LINES)) or None,
    )
    with RunDir(run_dir).log.open("a", encoding="utf-8") as handle:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        handle.write(f"[{stamp}] This job failed: {reason}\n{traceback or ''}")
    write_json(RunDir(run_dir).failure, asdict(failure))
    return failure


def read_failure(run_dir: Path) -> JobFailure | None:
    """Return the record of the job's last failure, if its last attempt failed."""
    record = read_json(RunDir(run_dir).failure)
    return JobFailure(**record) if record else None


def describe_exit(returncode: int) -> str:
    """Say in words how a process ended."""
    if returncode >= 0:
        return f"its process ended with exit code {returncode}"
    name = signal.Signals(-returncode).name
    hint = " (the system may have run out of memory)" if name == "SIGKILL" else ""
    return f"its process was killed by {name}{hint}"
