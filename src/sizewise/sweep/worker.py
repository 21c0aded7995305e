"""A worker process: runs the jobs its pool names, one after the other.

Protocol: the pool writes one JSON line per job to standard input, ``{"run_dir": …}``, and reads
one JSON line per ended job from what was standard output; while a job runs, both output streams
go to its own ``job.log``. A closed input ends the worker, and so does the death of the process
``--parent PID``. With ``--job DIR`` it runs that one job and exits: that is how further processes
of a distributed job begin.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path
from typing import IO, Any

from sizewise.sweep.execute import JobResult, execute, run_child
from sizewise.sweep.fresh import follow_parent, fresh_process_state
from sizewise.sweep.logs import output_to_log, redirect


def main(arguments: list[str]) -> int:
    """Run as a worker, or with ``--job DIR`` as a further process of that job."""
    parser = argparse.ArgumentParser(prog="sizewise.sweep.worker")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--job", type=Path)
    options = parser.parse_args(arguments)
    if options.job is not None:
        # Without the first process the next collective would wait in vain: nothing can be saved.
        follow_parent(options.parent, signal.SIGKILL)
        run_child(options.job)
        return 0
    follow_parent(options.parent)
    # Ctrl-C reaches the whole process group; the pool decides and sends SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8") as replies:
        redirect(Path(os.devnull))
        return _serve(sys.stdin, replies)


def _serve(requests: IO[str], replies: IO[str]) -> int:
    for line in iter(requests.readline, ""):
        run_dir = Path(json.loads(line)["run_dir"])
        try:
            with output_to_log(run_dir), fresh_process_state():
                reply = _reply(execute(run_dir))
        except KeyboardInterrupt:
            return 130
        replies.write(json.dumps(reply) + "\n")
        replies.flush()
    return 0


def _reply(result: JobResult) -> dict[str, Any]:
    return {"run_dir": str(result.run_dir), "state": str(result.state), "fresh": result.fresh}


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
