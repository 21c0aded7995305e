"""A lock between processes that may die at any moment, on any file system with atomic mkdir."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 60.0


@contextmanager
def held_lock(
    path: Path,
    done: Callable[[], bool],
    heartbeat: float = HEARTBEAT_SECONDS,
    stale: float = STALE_SECONDS,
    poll: float = 0.2,
) -> Iterator[bool]:
    """Hold the directory ``path`` as a lock, or wait until its owner has done the work.

    Yields True to the one who has to do the work, False once ``done()`` is true. A lock is taken
    over when its owner's process is gone (same machine) or when its time stamp has not changed
    for ``stale`` seconds of our own clock, so that clocks of several machines need not agree.
    In the worst case two processes do the same work; what they store has to be atomic.
    """
    token = uuid.uuid4().hex
    if not _acquire(path, token, done, stale, poll):
        yield False
        return
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, stop, heartbeat), daemon=True)
    beat.start()
    try:
        yield True
    finally:
        stop.set()
        beat.join()
        if _owner(path).get("token") == token:
            shutil.rmtree(path, ignore_errors=True)


def _acquire(path: Path, token: str, done: Callable[[], bool], stale: float, poll: float) -> bool:
    seen, since = 0.0, time.monotonic()
    path.parent.mkdir(parents=True, exist_ok=True)
    while not done():
        if _try(path, token):
            if not done():
                return True
            shutil.rmtree(path, ignore_errors=True)
            return False
        stamp = _stamp(path)
        if stamp != seen:
            seen, since = stamp, time.monotonic()
        owner = _owner(path)
        if _died(owner) or time.monotonic() - since > stale:
            _break(path, owner)
            continue
        time.sleep(poll)
    return False


def _try(path: Path, token: str) -> bool:
    try:
        path.mkdir()
    except FileExistsError:
        return False
    record = {"token": token, "host": socket.gethostname(), "pid": os.getpid()}
    try:
        (path / "owner.json").write_text(json.dumps(record), encoding="utf-8")
    except FileNotFoundError:  # taken for the stale one that was here a moment ago
        return False
    return True


def _break(path: Path, owner: dict[str, object]) -> None:
    """Take the lock of ``owner`` away: renamed first, so that only one of several does.

    Somebody else may have done so and hold a new lock by now: that one is put back.
    """
    grave = path.with_name(f"{path.name}.stale.{uuid.uuid4().hex}")
    with suppress(OSError):
        path.rename(grave)
        if _owner(grave) == owner:
            shutil.rmtree(grave, ignore_errors=True)
        else:
            grave.rename(path)


def _beat(path: Path, stop: threading.Event, every: float) -> None:
    while not stop.wait(every):
        with suppress(FileNotFoundError):
            os.utime(path)


def _stamp(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _owner(path: Path) -> dict[str, object]:
    try:
        record: dict[str, object] = json.loads((path / "owner.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return record


def _died(owner: dict[str, object]) -> bool:
    if owner.get("host") != socket.gethostname():
        return False
    try:
        os.kill(int(str(owner["pid"])), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
