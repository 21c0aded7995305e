"""The end of a sweep: its summary, written once for each set of results."""

from __future__ import annotations

import hashlib
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sizewise.config import PricesConfig
from sizewise.errors import SweepError
from sizewise.files import read_json, write_atomically, write_json
from sizewise.job.submit import load_function
from sizewise.record.brackets import read_tuning
from sizewise.record.claims import try_claim
from sizewise.record.directories import RunDir, SweepDir
from sizewise.record.state import JobFailure, JobState, is_done, job_state, read_failure
from sizewise.sweep.brackets import all_diverged
from sizewise.sweep.plan import Plan

FINISHED_FILE = "finished.json"
log = logging.getLogger(__name__)


class ReportError(SweepError):
    """The summary function failed; ``failures`` are those of every job without a result."""

    def __init__(self, message: str, failures: list[JobFailure]) -> None:
        super().__init__(message)
        self.failures = failures


@contextmanager
def imported_ahead(function: str | None) -> Iterator[Callable[[], None]]:
    """Give a function that begins, once, to import the summary function beside what goes on.

    That takes seconds, which a worker with nothing left to do leaves free. What was begun is
    through at the end of the block, however that ends; where it fails, ``finish`` says so.
    """

    def load() -> None:
        with suppress(Exception):
            load_function(str(function))

    ahead = threading.Thread(target=load, daemon=True)

    def begin() -> None:
        if function is not None and ahead.ident is None:
            ahead.start()

    try:
        yield begin
    finally:
        if ahead.ident is not None:
            ahead.join()


def finish(
    plan: Plan, function: str | None, prices: PricesConfig, margin: float | None = None
) -> list[JobFailure]:
    """Call the summary function, or show what it said if it has seen these results already.

    ``function``: import path of ``(sweep_dir, run_dirs, failures, *, prices, margin) -> None``, or
    None.
    Returns a failure for every job without a result. Where the function failed, ReportError; its
    traceback is in ``SweepDir.report_error``.
    """
    done = [job.run_dir for job in plan.jobs if is_done(job.run_dir)]
    failures = [*unfinished([job.run_dir for job in plan.jobs]), *all_diverged(plan.brackets)]
    if function is None or not done:
        return failures
    try:
        _summarise(plan, function, prices, margin, done, failures)
    except Exception as error:
        raise _report_error(error, plan, failures) from error
    return failures


def _summarise(
    plan: Plan,
    function: str,
    prices: PricesConfig,
    margin: float | None,
    done: list[Path],
    failures: list[JobFailure],
) -> None:
    results = {"results": _digest(done, failures, (prices, margin), plan.sweep_dir)}
    # Two processes may share a sweep; only one at a time may write its summary.
    while (claim := try_claim(plan.sweep_dir)) is None:
        time.sleep(0.5)
    with claim:
        if read_json(plan.sweep_dir / FINISHED_FILE) == results:
            _show_again(plan.sweep_dir)
            return
        summarise: Any = load_function(function)
        summarise(plan.sweep_dir, done, failures, prices=prices, margin=margin)
        SweepDir(plan.sweep_dir).report_error.unlink(missing_ok=True)
        write_json(plan.sweep_dir / FINISHED_FILE, results)


def listed(failures: list[JobFailure], jobs: int) -> str:
    """Name every job without a result, with its reason and its log."""
    lines = [f"{Path(f.run_dir).name}: {f.first_line}\n    log: {f.log}" for f in failures]
    return (
        f"{len(failures)} of {jobs} jobs have no result:\n  " + "\n  ".join(lines) + "\n"
        "The same command tries these again."
    )


def _report_error(error: Exception, plan: Plan, failures: list[JobFailure]) -> ReportError:
    path = SweepDir(plan.sweep_dir).report_error
    with suppress(OSError):  # the message names the reason also where no disk takes the rest
        write_atomically(path, "".join(traceback.format_exception(error)))
    first = listed(failures, len(plan.jobs)) + "\n" if failures else ""
    reason = (str(error).splitlines() or [""])[0]
    return ReportError(
        f"{first}The report could not be made: {type(error).__name__}: {reason}\n"
        f"    log: {path}\nNo result is lost; the same command makes the report again.",
        failures,
    )


def _show_again(sweep_dir: Path) -> None:
    log.info("Nothing new since the last summary: %s", sweep_dir)
    path = SweepDir(sweep_dir).summary
    if path.is_file():
        sys.stdout.write(path.read_text(encoding="utf-8"))


def unfinished(run_dirs: list[Path]) -> list[JobFailure]:
    """Return a failure for every directory that has no result (a pruned trial has one)."""
    failures = []
    for run_dir in run_dirs:
        state = job_state(run_dir)
        if state in (JobState.DONE, JobState.PRUNED):
            continue
        failure = read_failure(run_dir)
        if failure is None or state != JobState.FAILED:
            failure = JobFailure(str(run_dir), f"not finished ({state})", str(RunDir(run_dir).log))
        failures.append(failure)
    return failures


def _digest(done: list[Path], failures: list[JobFailure], asked: object, sweep_dir: Path) -> str:
    digest = hashlib.sha256(repr(asked).encode())
    if (tuned := read_tuning(sweep_dir)) is not None:
        digest.update(repr(tuned).encode())
    for run_dir in sorted(done):
        digest.update(run_dir.name.encode() + RunDir(run_dir).outcome.read_bytes())
    for failure in failures:
        digest.update(f"{failure.run_dir}: {failure.reason}".encode())
    return digest.hexdigest()
