"""A worker process: runs the jobs its pool names, and leaves nothing of one to the next."""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from sizewise.composition.inputs import names_hub
from sizewise.devices import device_works, free_memory, reset_peaks
from sizewise.errors import SizewiseError
from sizewise.job.execute import STOPPED_EXIT, JobResult, execute, run_child
from sizewise.job.submit import load_job
from sizewise.record.logs import output_to_log, redirect
from sizewise.record.state import JobState
from sizewise.runtime import prepare_environment, same_random_state

# The exit code of a worker whose GPU answers no more.
LOST_EXIT = 75


def main(arguments: list[str]) -> int:
    """Run as a worker, or with ``--job DIR`` as a further process of that job."""
    parser = argparse.ArgumentParser(prog="sizewise.sweep.launch.worker")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--job", type=Path)
    options = parser.parse_args(arguments)
    if options.job is not None:
        # Without the first process the next collective would wait in vain: nothing can be saved.
        follow_parent(options.parent, signal.SIGKILL)
        run_child(options.job)
        return 0
    follow_parent(options.parent)
    # Ctrl-C reaches the whole process group, and SLURM's warning all processes of its job: the pool
    # decides and sends SIGTERM.
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    with os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8") as replies:
        redirect(Path(os.devnull))
        return _serve(sys.stdin, replies)


def _serve(requests: IO[str], replies: IO[str]) -> int:
    def tell(result: JobResult) -> None:
        replies.write(json.dumps(_reply(result)) + "\n")
        replies.flush()

    for line in iter(requests.readline, ""):
        asked = json.loads(line)
        run_dirs = [Path(name) for name in asked["run_dirs"]]
        kept = Path(asked["kept"]) if "kept" in asked else None
        try:
            with fresh_process_state():
                _run(run_dirs, tell, kept)
        except KeyboardInterrupt:
            return STOPPED_EXIT
        if not device_works():  # the job that comes next, or came meanwhile, is not to blame
            return STOPPED_EXIT
    return 0


def _run(run_dirs: Sequence[Path], tell: Callable[[JobResult], None], kept: Path | None) -> None:
    """Run one job, or a pack of them; the output of each goes to its own log."""
    if len(run_dirs) > 1:
        prepare_environment(any(map(_needs_hub, run_dirs)))  # torch is imported by the next line
        from sizewise.job.pack import execute_together

        def tell_or_leave(result: JobResult) -> None:
            tell(result)
            if result.state == JobState.FAILED and not device_works():
                os._exit(LOST_EXIT)  # each of the others is then tried alone

        execute_together(run_dirs, tell_or_leave, kept)
        return
    try:
        with output_to_log(run_dirs[0]):
            result = execute(run_dirs[0])
    except OSError as error:  # its log cannot be written: the disk is full, or gone
        result = JobResult(run_dirs[0], JobState.FAILED, message=str(error))
    tell(result)


def _needs_hub(run_dir: Path) -> bool:
    try:
        return names_hub(load_job(run_dir)[0])
    except (SizewiseError, OSError):  # the job says it itself
        return False


def _reply(result: JobResult) -> dict[str, Any]:
    return {"run_dir": str(result.run_dir), "state": result.state, "message": result.message}


PR_SET_PDEATHSIG = 1


@contextmanager
def fresh_process_state() -> Iterator[None]:
    """Give a job the random state, environment and peaks of a new process, and clean up after."""
    environment, directory = dict(os.environ), Path.cwd()
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    same_random_state()
    reset_peaks()
    try:
        yield
    finally:
        os.chdir(directory)
        for name in [name for name in os.environ if name not in environment]:
            del os.environ[name]
        os.environ.update(environment)
        root.setLevel(level)
        root.handlers[:] = handlers
        _release_memory()


def _release_memory() -> None:
    if not device_works():
        return
    free_memory()
    # What is left are libraries and the kept base: looking through them takes longer than all
    # else between two jobs. ``take_base`` empties the base itself when it lets it go.
    gc.freeze()
    if sys.platform == "linux":
        # glibc keeps freed memory; a long sweep would seem to grow.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def follow_parent(parent: int, number: signal.Signals = signal.SIGTERM) -> None:
    """Let this process get a signal when ``parent`` dies, so that nothing runs on unseen.

    Ends the process at once if the parent died before it could be followed: the system tells only
    of deaths that are still to come.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:
            raise SystemExit(128 + number)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
