"""Run the job of one directory in this process: claim it, run it, record how it ended."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from hydra.core.hydra_config import HydraConfig

from sizewise.errors import SizewiseError, SweepError
from sizewise.job.submit import load_job, submitted_stop
from sizewise.record.claims import holder, try_claim
from sizewise.record.directories import RunDir
from sizewise.record.outcome import Outcome
from sizewise.record.state import JobState, finished, forget_failure, record_failure
from sizewise.record.stops import FitStopped, go_on, standing_stop, stop_at, write_stop
from sizewise.runtime import is_ddp_child
from sizewise.signals import SignalHandlers

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobResult:
    """How a job ended. ``fresh``: it was run now, and not found finished or held by another."""

    run_dir: Path
    state: JobState
    objective: float | None = None
    message: str | None = None
    fresh: bool = True


def execute(run_dir: Path, interrupts: Interrupts | None = None) -> JobResult:
    """Run the submitted job of ``run_dir`` unless it is done or another process works on it.

    An error of the job is recorded, logged with its traceback in the job's own log, and returned;
    only a request to stop (KeyboardInterrupt) is raised, after the claim was given up.

    Args:
        run_dir: a directory with a ``job.json``.
        interrupts: tells whether the job was asked to stop (default: by SIGINT or SIGTERM).
    """
    if is_ddp_child():
        return run_child(run_dir)
    if (result := stored_result(run_dir)) is not None:
        return result
    try:
        claim = try_claim(run_dir)
    except OSError as error:  # a full disk, or one that is gone
        return _record(run_dir, f"{run_dir} cannot be claimed: {error}", None)
    if claim is None:
        return JobResult(run_dir, JobState.RUNNING, fresh=False)
    with interrupts or Interrupts() as interrupts:
        # Another process may have finished the job between the look and the claim.
        result = stored_result(run_dir) or _attempt(run_dir, interrupts)
        claim.release(str(result.state))
        if result.state == JobState.INTERRUPTED:
            raise KeyboardInterrupt(interrupts.name)
    return result


def require(result: JobResult) -> JobResult:
    """Return how a job ended; SweepError if it failed, or another process works on it."""
    where = result.run_dir
    if result.state == JobState.RUNNING and not result.fresh:
        raise SweepError(f"{where} is being worked on by {holder(where)}. Wait, or stop it first.")
    if result.state == JobState.FAILED:
        raise SweepError(f"{result.message}\n  log: {RunDir(where).log}")
    return result


def run_child(run_dir: Path) -> JobResult:
    """Run the job as a further process of a distributed one; its first process keeps the books."""
    config, function = load_job(run_dir)
    with suppress(FitStopped):  # all its processes stop there
        function(config, run_dir)
    return JobResult(run_dir, JobState.RUNNING, fresh=False)


def stored_result(run_dir: Path) -> JobResult | None:
    """Return the result of a run that is done, or has stopped where it was asked to; else None."""
    outcome = finished(run_dir)
    if outcome is not None:
        return JobResult(run_dir, JobState.DONE, outcome.objective, fresh=False)
    share, stop = submitted_stop(run_dir), standing_stop(run_dir)
    if share is None or stop is None or not (stop.share == share or stop.diverged):
        return None
    return JobResult(run_dir, JobState.PRUNED, stop.value, str(stop), fresh=False)


def _attempt(run_dir: Path, interrupts: Interrupts) -> JobResult:
    try:
        forget_failure(run_dir)
        go_on(run_dir)
        _stay(run_dir)
        config, function = load_job(run_dir)
        with children_run(run_dir):
            outcome = function(config, run_dir)
    except FitStopped as stopped:
        write_stop(run_dir, stopped.stop)
        log.info("The fit has %s.", stopped)
        return JobResult(run_dir, JobState.PRUNED, stopped.stop.value, str(stopped))
    except BaseException as error:
        return _failed(run_dir, error, interrupts)
    return _done(run_dir, outcome)


def _stay(run_dir: Path) -> None:
    """Stop a fit that has been where it is asked to stop: a launcher with an old view asks."""
    share = submitted_stop(run_dir)
    stop = None if share is None else stop_at(run_dir, share)
    if stop is not None:
        raise FitStopped(stop)


def _done(run_dir: Path, outcome: Outcome) -> JobResult:
    if finished(run_dir) is None:
        return _record(run_dir, "the job returned without writing its outcome", None)
    return JobResult(run_dir, JobState.DONE, outcome.objective)


def _failed(run_dir: Path, error: BaseException, interrupts: Interrupts) -> JobResult:
    # Lightning turns an interrupt into sys.exit(1), so the signal counts and not the exception;
    # submitit alone raises one after a signal to say that this was the last start. A fit that
    # SIGTERM stopped, as `scancel` does, leaves as a process without a handler would.
    last_start = interrupts.received == signal.SIGUSR2 and isinstance(error, Exception)
    stopped = isinstance(error, KeyboardInterrupt) or (
        isinstance(error, SystemExit) and error.code == 128 + signal.SIGTERM
    )
    if stopped or (interrupts.received and not last_start):
        return JobResult(run_dir, JobState.INTERRUPTED)
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, SizewiseError):
        return _record(run_dir, str(error), trace)
    if isinstance(error, SystemExit):
        return _record(run_dir, f"the job ended its process with exit code {error.code}", trace)
    return _record(run_dir, f"{type(error).__name__}: {error}", trace)


def _record(run_dir: Path, reason: str, trace: str | None) -> JobResult:
    record_failure(run_dir, reason, traceback=trace)
    return JobResult(run_dir, JobState.FAILED, message=reason)


class Interrupts(SignalHandlers):
    """Remember a signal and raise KeyboardInterrupt in the main thread.

    Libraries turn KeyboardInterrupt into other exceptions, so ``received`` is what tells whether
    the job was stopped from outside. Does nothing outside the main thread or if not ``enabled``.
    A worker ignores SIGINT on purpose (its pool decides when it stops), and so it stays.
    """

    raises = True

    def __init__(self, enabled: bool = True) -> None:
        self.received: int | None = None
        super().__init__(self._handle, enabled=enabled)

    @property
    def name(self) -> str:
        """Name of the signal that was received."""
        return signal.Signals(self.received or signal.SIGINT).name

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + number)
        self.received = number
        raise KeyboardInterrupt(signal.Signals(number).name)


WORKER_MODULE = "sizewise.sweep.launch.worker"
# The exit code of a worker that was asked to stop: its jobs have saved their state.
STOPPED_EXIT = 130


def worker_arguments(run_dir: Path | None = None) -> list[str]:
    """Return the arguments of a worker that ends with this process, for one job or for many."""
    job = [] if run_dir is None else ["--job", str(run_dir.resolve())]
    return ["--parent", str(os.getpid()), *job]


@contextmanager
def children_run(run_dir: Path) -> Iterator[None]:
    """Let processes that are started from here run the job of ``run_dir``."""
    main = sys.modules["__main__"]
    kept = (sys.argv, getattr(main, "__spec__", None), HydraConfig.instance().cfg)
    environment = dict(os.environ)
    sys.argv = [WORKER_MODULE, *worker_arguments(run_dir)]
    main.__spec__ = importlib.util.find_spec(WORKER_MODULE)
    HydraConfig.instance().cfg = None
    try:
        yield
    finally:
        sys.argv, main.__spec__, HydraConfig.instance().cfg = kept
        # Ranks and addresses of this job must not reach the next one in this process.
        for name in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(name, None)
            if name in environment:
                os.environ[name] = environment[name]
