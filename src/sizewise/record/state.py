"""The state of a job, read from the files in its directory and from nothing else."""

from __future__ import annotations

import logging
import signal
import time
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

from sizewise.errors import OutcomeError
from sizewise.files import read_json, settled, tail, write_json
from sizewise.record.claims import Owner, attempts, holder
from sizewise.record.directories import RunDir
from sizewise.record.outcome import Outcome, read_outcome

TAIL_LINES = 30
log = logging.getLogger(__name__)


class JobState(StrEnum):
    """What has become of a job. ``interrupted``: begun, and nobody works on it any more."""

    DONE = "done"
    RUNNING = "running"
    FAILED = "failed"
    PRUNED = "pruned"
    INTERRUPTED = "interrupted"
    QUEUED = "queued"
    WAITING = "waiting"


ENDED = (JobState.DONE, JobState.PRUNED, JobState.FAILED)


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

    @property
    def first_line(self) -> str:
        """The reason where there is room for a line."""
        return (str(self.reason).splitlines() or ["no reason was given"])[0]


def finished(run_dir: Path) -> Outcome | None:
    """Return the outcome of a run that is done: its whole record reads and fits its own hash."""
    if not RunDir(run_dir).outcome.is_file():
        return None
    try:
        return read_outcome(run_dir, intact=True)
    except OutcomeError:
        return None


def is_done(run_dir: Path) -> bool:
    try:
        stat = RunDir(run_dir).outcome.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    reads = _reads if settled(stat) else _reads.__wrapped__
    return reads(run_dir, stat.st_ino, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=16_384)
def _reads(run_dir: Path, inode: int, size: int, changed_ns: int) -> bool:
    return finished(run_dir) is not None


def job_state(run_dir: Path) -> JobState:
    """Tell the state of the job in ``run_dir``; a dead worker's job is not running."""
    return state_and_owner(run_dir)[0]


def state_and_owner(run_dir: Path) -> tuple[JobState, Owner | None]:
    """As ``job_state``, with whoever works on the job."""
    if is_done(run_dir):
        return JobState.DONE, None
    owner = holder(run_dir)
    return (JobState.RUNNING, owner) if owner is not None else (_idle_state(run_dir), None)


def _idle_state(run_dir: Path) -> JobState:
    if RunDir(run_dir).pruned.exists():
        return JobState.PRUNED
    if RunDir(run_dir).failure.exists() or run_dir in _unwritten:
        return JobState.FAILED
    if RunDir(run_dir).queued.exists():
        return JobState.QUEUED
    return JobState.INTERRUPTED if attempts(run_dir) else JobState.WAITING


# Failures of this process's jobs that no disk took.
_unwritten: dict[Path, JobFailure] = {}


def record_failure(
    run_dir: Path,
    reason: str,
    *,
    traceback: str | None = None,
    returncode: int | None = None,
) -> JobFailure:
    """Write why the job in ``run_dir`` failed, as a record and into its log.

    Where the disk is full or gone, that is said, and this process remembers the failure.
    ``returncode`` is that of a process that died, negative for a signal.
    """
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
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        with RunDir(run_dir).log.open("a", encoding="utf-8") as handle:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S")
            handle.write(f"[{stamp}] This job failed: {reason}\n{traceback or ''}")
        write_json(RunDir(run_dir).failure, asdict(failure))
    except OSError as error:
        _unwritten[run_dir] = failure
        said = failure.first_line
        log.error("%s failed (%s), and nothing can be written there: %s", run_dir, said, error)
    return failure


def forget_failure(run_dir: Path) -> None:
    _unwritten.pop(run_dir, None)
    RunDir(run_dir).failure.unlink(missing_ok=True)


def read_failure(run_dir: Path) -> JobFailure | None:
    """Return the record of the job's last failure, if its last attempt failed."""
    path = RunDir(run_dir).failure
    if not path.exists():
        return _unwritten.get(run_dir)
    try:
        return JobFailure(**(read_json(path) or {}))
    except TypeError:
        reason = f"it failed, and {path.name} does not say why any more"
        return JobFailure(str(run_dir), reason, str(RunDir(run_dir).log))


def describe_exit(returncode: int) -> str:
    """Say in words how a process ended."""
    if returncode >= 0:
        return f"its process ended with exit code {returncode}"
    name = signal.Signals(-returncode).name
    hint = " (the system may have run out of memory)" if name == "SIGKILL" else ""
    return f"its process was killed by {name}{hint}"
