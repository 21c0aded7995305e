"""Claims: at most one live process works on a directory, also on a shared file system."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from sizewise.files import read_json, write_atomically
from sizewise.record.directories import RunDir

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Owner:
    """A process on a machine. ``machine`` tells apart boots and containers with equal names.

    ``at``: when it began to own what it owns, in seconds since the epoch.
    """

    token: str
    host: str
    machine: str
    pid: int
    started: str
    queue_job: str | None = None
    restarts: int = 0
    at: float | None = None

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
    pid = os.getpid()
    return Owner(
        token=uuid.uuid4().hex,
        host=socket.gethostname(),
        machine=machine_id(),
        pid=pid,
        started=process_start(pid) or "",
        queue_job=queue_job(),
        restarts=restarts(),
        at=round(time.time(), 3),
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


HEARTBEAT_SECONDS = 15.0
STALE_SECONDS = 120.0


class Claim:
    """A held claim: a thread keeps it fresh until it is released or superseded.

    ``alone``: whoever loses it must stop, for two processes would write to the same files.
    """

    def __init__(self, path: Path, owner: Owner, number: int, alone: bool = True) -> None:
        self.path, self.owner, self.number, self.alone = path, owner, number, alone
        self.lost = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="claim", daemon=True)
        self._thread.start()

    def release(self, state: str) -> None:
        """Give the claim up, saying how the work ended; a full disk does not keep it held."""
        self._stop.set()
        self._thread.join()
        if self.lost:
            return
        try:
            ended = {"released": state, "ended": round(time.time(), 3)}
            write_atomically(self.path, json.dumps({**asdict(self.owner), **ended}))
        except OSError as error:
            log.warning("%s cannot say that it ended (%s): %s", self.owner, state, error)
            with suppress(OSError):  # a claim without an owner that is old is nobody's
                os.truncate(self.path, 0)
                os.utime(self.path, (0, 0))

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._stop.is_set():
            self.release("interrupted" if kind else "ended")

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            try:
                superseded = _path(self.path.parent, self.number + 1).exists()
                if not superseded:
                    os.utime(self.path)
            except OSError as error:
                # A file server that does not answer now may do so at the next beat.
                log.warning("The claim %s could not be kept fresh: %s", self.path, error)
                continue
            if superseded:
                # This machine slept or the disk was away for so long that another one took over.
                self.lost = True
                if self.alone:
                    _stop_main()
                return


def _stop_main() -> None:
    """Interrupt the main thread as a signal would, by one that it does not ignore.

    A worker of a pool ignores SIGINT. A real signal also wakes a main thread that waits.
    """
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGTERM if ignored else signal.SIGINT)


def try_claim(directory: Path, alone: bool = True) -> Claim | None:
    """Claim ``directory`` for this process; None if a live process holds it.

    Whoever gets the claim has to look again whether the work is still to be done. ``alone``: see
    ``Claim``.
    """
    folder = RunDir(directory).claims
    folder.mkdir(parents=True, exist_ok=True)
    number = _highest(folder)
    if number and _held(folder, number):
        return None
    owner = this_process()
    path = _path(folder, number + 1)
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
            handle.write(json.dumps(asdict(owner)))
            handle.flush()
            os.fsync(handle.fileno())
    except OSError:  # on a full disk an empty claim would hold the directory
        path.unlink()
        raise
    return Claim(path, owner, number + 1, alone)


Found = TypeVar("Found")


def claim_or_find(
    directory: Path, find: Callable[[], Found | None], poll: float = 0.5
) -> Claim | Found:
    """Wait for a result that another process may be making in ``directory``, or claim to make it.

    Returns what ``find`` finds, or the claim of the one process that has to make it: the first to
    ask, or another where its owner died or gave up. In the worst case (a machine slept) two make
    the same; what they store has to be atomic.
    """
    waiting = False
    while (found := find()) is None:
        claim = try_claim(directory, alone=False)
        if claim is not None:
            if (found := find()) is None:
                return claim
            claim.release("found")
            return found
        if not waiting:
            log.info("Waiting for %s, which works on %s", holder(directory), directory)
        waiting = True
        time.sleep(poll)
    return found


def holder(directory: Path) -> Owner | None:
    """Return the live owner of ``directory``, or None."""
    folder = RunDir(directory).claims
    number = _highest(folder)
    if not number or not _held(folder, number, looking=True):
        return None
    return _owner(_path(folder, number)) or Owner("", "an unknown machine", "", 0, "")


def attempts(directory: Path) -> int:
    return _highest(RunDir(directory).claims)


def seconds_worked(directory: Path, now: float, held: bool) -> float:
    """Return for how long processes have owned ``directory``, over all attempts.

    Where it is ``held`` the last one counts until ``now``; one that died until its last sign of
    life.
    """
    folder, total = RunDir(directory).claims, 0.0
    last = _highest(folder)
    for number in range(1, last + 1):
        path = _path(folder, number)
        record = read_json(path) or {}
        if (began := _moment(record, "at")) is None:
            continue
        ended = _moment(record, "ended")
        if ended is None and held and number == last:
            ended = now
        if ended is None:
            try:
                ended = path.stat().st_mtime
            except FileNotFoundError:  # the directory has just been removed
                continue
        total += max(0.0, ended - began)
    return total


def _moment(record: Mapping[str, Any], name: str) -> float | None:
    """A time of a claim in seconds since the epoch; None where it says none that could be one."""
    value = record.get(name)
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _held(folder: Path, number: int, looking: bool = False) -> bool:
    """Whether a claim counts; ``looking``: nothing hangs on it, and nothing need be writable."""
    path = _path(folder, number)
    record = read_json(path)
    if record and record.get("released"):
        return False
    owner = _owner(path)
    if owner is None:  # its owner is about to write it, or died in that moment
        return _fresh(path, looking)
    if owner.earlier_start:
        return False
    return owner.alive if owner.here else _fresh(path, looking)


def _owner(path: Path) -> Owner | None:
    """Read the owner, whatever later versions say of it beside; None where a part is missing."""
    record = read_json(path) or {}
    record["at"] = _moment(record, "at")
    try:
        return Owner(**{f.name: record[f.name] for f in fields(Owner) if f.name in record})
    except TypeError:
        return None


def _fresh(path: Path, looking: bool) -> bool:
    """Whether ``path`` was touched of late. Both times come from the file server's clock.

    Who may only read and is only ``looking`` takes this machine's clock for it. A host whose clock
    is ahead dates its claim ahead: it is dated back to now, and while that host lives, it beats.
    """
    try:
        now = _server_time(path.parent)
    except OSError:
        if not looking:
            raise
        now = time.time()
    try:
        age = now - path.stat().st_mtime
    except FileNotFoundError:  # the directory has just been removed
        return False
    if age < -HEARTBEAT_SECONDS:
        with suppress(PermissionError):
            os.utime(path, (now, now))
    return age < STALE_SECONDS


def _server_time(folder: Path) -> float:
    probe = folder / f".clock-{uuid.uuid4().hex}"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _highest(folder: Path) -> int:
    try:
        names = [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return 0
    return max((int(name[:-5]) for name in names if name[:-5].isdigit()), default=0)


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.json"
