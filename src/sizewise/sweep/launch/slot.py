"""One place of a pool: a worker process, its devices, and the job it is on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field

from sizewise.job.execute import WORKER_MODULE, worker_arguments
from sizewise.job.submit import Job
from sizewise.record.identity import reuse_key
from sizewise.record.state import JobState

# A worker that was told to end has so long before it is told more plainly.
EXIT_SECONDS = 30.0
THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS",
)  # fmt: skip


@dataclass
class Slot:
    """Runs one job at a time in a process of its own, which is replaced when it dies.

    ``gpus`` None leaves CUDA_VISIBLE_DEVICES as it is; the devices and the share of threads are in
    the process's environment before it imports anything. ``message``: what the worker said of the
    job that ended last.
    """

    number: int
    gpus: list[str] | None
    threads: int
    job: Job | None = None
    started: float = 0.0
    base: str | None = None
    message: str | None = None
    process: subprocess.Popen[bytes] | None = None
    _buffer: bytes = field(default=b"")

    def start(self, job: Job) -> None:
        """Give the worker a job; begin a worker where there is none."""
        if self.process is None:
            self._spawn()
        assert self.process is not None
        assert self.process.stdin is not None
        self.job, self.started, self.base = job, time.monotonic(), reuse_key(job.config)
        request = json.dumps({"run_dir": str(job.run_dir)}) + "\n"
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

    def read(self) -> JobState | int | None:
        """Read what the worker wrote: how its job ended, its exit code if it died, or None."""
        chunk = os.read(self.fileno(), 65_536)
        if not chunk:
            return self._buried()
        self._buffer += chunk
        line, newline, rest = self._buffer.partition(b"\n")
        if not newline:
            return None
        self._buffer = rest
        reply = json.loads(line)
        self.message = reply["message"]
        return JobState(reply["state"])

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
