"""How far a job is: a file for whoever sees its directory, and a line a minute in its log.

A job says what it is about to do (``stage``) and how much of it is done. Nothing hangs on it: a
stand that is missing, damaged or old only means that less can be shown.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path

from sizewise.files import read_json
from sizewise.record.directories import RunDir
from sizewise.record.kinds import check_kinds

log = logging.getLogger(__name__)
FILE_SECONDS, LINE_SECONDS = 2.0, 60.0
TRAINING, ANSWERS = "training", "answers"


@dataclass(frozen=True)
class Stand:
    """Where a job stood at ``time`` (seconds since the epoch).

    ``done`` counts steps or answers, of ``of``; at ``since``, when this process began with them,
    ``first`` were done. ``what`` names the answers: ``tuned.DATASET``.
    """

    stage: str
    what: str
    done: int
    of: int
    first: int
    since: float
    time: float

    @property
    def left(self) -> float | None:
        """Seconds left of the stage, as seen at ``time``; None where nothing is done yet."""
        made = self.done - self.first
        return (self.time - self.since) * (self.of - self.done) / made if made > 0 else None

    def __str__(self) -> str:
        name = f"{self.stage} {self.what}".strip()
        return f"{name}: {self.done} of {self.of}"


Tell = Callable[..., None]
"""Called with the number done, and perhaps with a text that says more of it."""


class Pulse:
    """Writes the stand of one job, every two seconds to its file, once a minute to its log."""

    def __init__(self, run_dir: Path, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = RunDir(run_dir).progress, clock

    def stage(self, stage: str, of: int, first: int = 0, what: str = "") -> Tell:
        """Return what is to be called with the number that is done."""
        since = said = self._clock()
        written = 0.0

        def tell(done: int, more: str = "") -> None:
            nonlocal said, written
            now = self._clock()
            stand = Stand(stage, what, done, of, first, since, now)
            if now - written >= FILE_SECONDS:
                written = now
                self._write(stand)
            if now - said >= LINE_SECONDS:
                said = now
                left = "" if stand.left is None else f", about {clock_text(stand.left)} left"
                log.info("%s%s%s", stand, left, f"  {more}" if more else "")

        tell(first)
        return tell

    def _write(self, stand: Stand) -> None:
        temporary = self._path.with_name(f".{self._path.name}.tmp")
        with suppress(OSError):  # a full disk is for others to say
            temporary.write_text(json.dumps(asdict(stand)), encoding="utf-8")
            temporary.replace(self._path)

    def end(self) -> None:
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


_pulse: ContextVar[Pulse | None] = ContextVar("pulse", default=None)


@contextmanager
def pulse(run_dir: Path, clock: Callable[[], float] = time.time) -> Iterator[None]:
    """Let every ``stage`` inside the block be one of the job in ``run_dir``."""
    run_dir.mkdir(parents=True, exist_ok=True)
    own = Pulse(run_dir, clock)
    token = _pulse.set(own)
    try:
        yield
    finally:
        _pulse.reset(token)
        own.end()


def stage(name: str, of: int, first: int = 0, what: str = "") -> Tell:
    """As ``Pulse.stage`` of the job that is under way; outside of one nobody is told."""
    own = _pulse.get()
    return own.stage(name, of, first, what) if own is not None else lambda *_: None


def read_stand(run_dir: Path) -> Stand | None:
    """Return where a job stands; None where it does not say, or not as this version does."""
    record = read_json(RunDir(run_dir).progress)
    try:
        check_kinds(record or {}, Stand)
        stand = Stand(**(record or {}))
    except (ValueError, TypeError):
        return None
    return stand if math.isfinite(stand.since) and math.isfinite(stand.time) else None


def clock_text(seconds: float) -> str:
    """A duration as a clock shows it: ``0:07``, ``12:40``, ``3:05:00``; ``?`` if it is none."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
