"""A worker process: runs the jobs its pool names, one after the other.

Protocol: the pool writes one JSON line per job to standard input, ``{"run_dir": …}``, and reads
one JSON line per ended job from what was standard output; while a job runs, both output streams
go to its own ``job.log``. A closed input ends the worker. With ``--job DIR`` it runs that one job
and exits: that is how further processes of a distributed job begin.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from sizewise.sweep.execute import JobResult, execute, run_child
from sizewise.sweep.files import LOG_FILE
from sizewise.sweep.fresh import follow_parent, fresh_process_state

LOG_FORMAT = "[%(asctime)s][%(name)s][%(levelname)s] %(message)s"


def main(arguments: list[str]) -> int:
    """Run as a worker, or with ``--job DIR`` as a further process of that job."""
    follow_parent()
    if arguments[:1] == ["--job"]:
        run_child(Path(arguments[1]))
        return 0
    # Ctrl-C reaches the whole process group; the pool decides and sends SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8") as replies:
        _redirect(Path(os.devnull))
        return _serve(sys.stdin, replies)


def _serve(requests: IO[str], replies: IO[str]) -> int:
    for line in iter(requests.readline, ""):
        run_dir = Path(json.loads(line)["run_dir"])
        try:
            with job_log(run_dir), fresh_process_state():
                reply = _reply(execute(run_dir))
        except KeyboardInterrupt:
            return 130
        replies.write(json.dumps(reply) + "\n")
        replies.flush()
    return 0


@contextmanager
def job_log(run_dir: Path) -> Iterator[None]:
    """Send everything that this process prints or logs to the job's log."""
    run_dir.mkdir(parents=True, exist_ok=True)
    before = os.dup(1), os.dup(2)
    _redirect(run_dir / LOG_FILE)
    handler = logging.FileHandler(run_dir / LOG_FILE, encoding="utf-8")
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
        handler.close()
        _restore(*before)


def _redirect(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    _restore(descriptor, os.dup(descriptor))


def _restore(output: int, errors: int) -> None:
    """Make these the output streams of the process, for libraries in C as well."""
    sys.stdout.flush()
    sys.stderr.flush()
    for descriptor, stream in ((output, 1), (errors, 2)):
        os.dup2(descriptor, stream)
        os.close(descriptor)


def _reply(result: JobResult) -> dict[str, Any]:
    return {"run_dir": str(result.run_dir), "state": str(result.state), "fresh": result.fresh}


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
