"""The log of a job: what it logs, and in a process of its own also what it prints."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sizewise.record.directories import RunDir

LOG_FORMAT = "[%(asctime)s][%(name)s][%(levelname)s] %(message)s"


@contextmanager
def job_log(run_dir: Path) -> Iterator[None]:
    """Write everything that is logged inside the block to the job's own ``job.log`` as well.

    Nothing is done where a handler writes to that file already, as Hydra's does.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(RunDir(run_dir).log, encoding="utf-8")
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    root = logging.getLogger()
    if any(getattr(h, "baseFilename", None) == handler.baseFilename for h in root.handlers):
        handler.close()
        yield
        return
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


@contextmanager
def output_to_log(run_dir: Path) -> Iterator[None]:
    """Send everything that this process prints or logs to the job's log, and nowhere else."""
    run_dir.mkdir(parents=True, exist_ok=True)
    before = os.dup(1), os.dup(2)
    redirect(RunDir(run_dir).log)
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    root.handlers[:] = []
    root.setLevel(logging.INFO)
    try:
        with job_log(run_dir):
            yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
        _restore(*before)


def redirect(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    _restore(descriptor, os.dup(descriptor))


def _restore(output: int, errors: int) -> None:
    send_output(output, errors)
    os.close(output)
    os.close(errors)


def send_output(output: int, errors: int) -> None:
    """Let output and errors of the process go to these descriptors, for libraries in C as well."""
    for buffered in (sys.stdout, sys.stderr):
        with suppress(OSError):  # a full disk takes no more of it
            buffered.flush()
    os.dup2(output, 1)
    os.dup2(errors, 2)
