"""One place of a pool: a worker process, its devices, and the job it is on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sizewise.job.execute import WORKER_MODULE, worker_arguments
from sizewise.job.submit import Job
from sizewise.record.identity import reuse_key
from sizewise.record.state import JobState

# A worker that was told to end has so long before it is told more plainly.
EXIT_SECONDS = 30.0
THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS",
)  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a job ended: as its worker said, with what it said of it, or by the worker's exit."""

    job: Job
    answer: JobState | int
    message: str | None = None


@dataclass
class Slot:
    """Runs one job, or one pack of jobs, at a time in a process of its own, replaced when it dies.

    ``gpus`` None leaves CUDA_VISIBLE_DEVICES as it is, and ``threads`` None their number; both are
    in the process's environment before it imports anything. ``jobs`` are those that have not ended;
    ``packed``: they were begun with others.
    """

    number: int
    gpus: list[str] | None
    threads: int | None
    jobs: list[Job] = field(default_factory=list)
    packed: bool = False
    started: float = 0.0
    base: str | None = None
    process: subprocess.Popen[bytes] | None = None
    _buffer: bytes = field(default=b"")

    def start(self, jobs: Sequence[Job], kept: Path | None = None) -> None:
        """Give the worker a job, or several to be packed; begin a worker where there is none.

        ``kept``: as of ``job.pack.execute_together``.
        """
        if self.process is None:
            self._spawn()
        assert self.process is not None
        assert self.process.stdin is not None
        self.jobs, self.started = list(jobs), time.monotonic()
        self.base, self.packed = reuse_key(jobs[0].config), len(jobs) > 1
        asked = {"run_dirs": [str(job.run_dir) for job in jobs]}
        request = json.dumps(asked | ({} if kept is None else {"kept": str(kept)})) + "\n"
        try:
            self.process.stdin.write(request.encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            return  # the end of its output tells the pool

    @property
    def dead(self) -> bool:
        """Whether the worker has died and was not yet buried."""
        return self.process is not None and self.process.poll() is not None

    def fileno(self) -> int:
        if self.process is None or self.process.stdout is None:
            raise ValueError("this slot has no worker")
        return self.process.stdout.fileno()

    def read(self) -> list[Ended]:
        """Return which jobs the worker says have ended; where it died, all that were left."""
        chunk = os.read(self.fileno(), 65_536)
        if not chunk:
            code, left, self.jobs = self._buried(), self.jobs, []
            return [Ended(job, code) for job in left]
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        return [self._ended(json.loads(line)) for line in lines]

    def _ended(self, reply: Mapping[str, Any]) -> Ended:
        (job,) = (job for job in self.jobs if str(job.run_dir) == reply["run_dir"])
        self.jobs.remove(job)
        return Ended(job, JobState(reply["state"]), reply["message"])

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def close(self) -> None:
        """End an idle worker; one that hangs at its exit is killed."""
        if self.process is not None:
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    pipe.close()
            _wait_or_kill(self.process)
            self.process = None

    def _buried(self) -> int:
        assert self.process is not None
        code = _wait_or_kill(self.process)
        self._buffer, self.base = b"", None
        self.close()
        return code

    def environment(self) -> dict[str, str]:
        """The environment of a process in this place."""
        environment = dict(os.environ)
        if self.gpus is not None:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self.gpus)
        if self.threads is not None:
            environment.update({name: str(self.threads) for name in THREAD_VARIABLES})
        environment.setdefault("TOKENIZERS_PARALLELISM", "false")
        return environment

    def _spawn(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", WORKER_MODULE, *worker_arguments()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self.environment(),
        )


def _wait_or_kill(process: subprocess.Popen[bytes]) -> int:
    """Wait for the end of a process that has nothing left to do, and return its exit code."""
    for insist in (process.terminate, process.kill):
        try:
            return process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            insist()
    return process.wait()
