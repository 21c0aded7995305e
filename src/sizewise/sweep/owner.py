"""Who holds a claim, and whether that process is still alive."""

from __future__ import annotations

import os
import socket
import uuid
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Owner:
    """A process on a machine. ``machine`` tells apart boots and containers with equal names."""

    token: str
    host: str
    machine: str
    pid: int
    started: str
    queue_job: str | None = None
    restarts: int = 0

    @property
    def here(self) -> bool:
        """Whether the owner ran where this process runs, so that its life can be looked up."""
        return self.machine == machine_id()

    @property
    def alive(self) -> bool:
        """Whether the owner, on this machine, still runs (a reused pid does not count)."""
        return process_start(self.pid) == self.started

    @property
    def earlier_start(self) -> bool:
        """Whether the owner was an earlier start of this same queued job (it was requeued)."""
        same = self.queue_job is not None and self.queue_job == queue_job()
        return same and self.restarts < restarts()

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def this_process() -> Owner:
    """Describe this process as an owner, with a fresh token."""
    pid = os.getpid()
    return Owner(
        token=uuid.uuid4().hex,
        host=socket.gethostname(),
        machine=machine_id(),
        pid=pid,
        started=process_start(pid) or "",
        queue_job=queue_job(),
        restarts=restarts(),
    )


def queue_job() -> str | None:
    """Return SLURM's id of this job (it stays the same when the job is requeued)."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array:
        return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '')}"
    return os.environ.get("SLURM_JOB_ID")


def restarts() -> int:
    """Return how often SLURM has begun this job anew."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


@cache
def machine_id() -> str:
    """Return a name for this boot of this machine and its process-id namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    try:
        namespace = Path("/proc/self/ns/pid").readlink()
        return f"{boot.read_text().strip()}:{namespace}"
    except OSError:
        return socket.gethostname()


def process_start(pid: int) -> str | None:
    """Return when process ``pid`` began, in the system's own unit; None if it does not run."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return None if Path("/proc/self/stat").exists() else _portable_start(pid)
    except ProcessLookupError:
        return None
    fields = stat.rpartition(")")[2].split()
    # Field 3 is the state: a zombie has died but was not yet waited for. Field 22 is the start.
    return None if fields[0] in "ZX" else fields[19]


def _portable_start(pid: int) -> str | None:
    import psutil

    try:
        return f"{psutil.Process(pid).create_time():.2f}"
    except psutil.NoSuchProcess:
        return None
