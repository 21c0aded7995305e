"""Fits that were stopped before their end: where, and what they had come to."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from sizewise.errors import SizewiseError
from sizewise.files import read_json, sealed, unsealed, write_json
from sizewise.record.directories import RunDir
from sizewise.record.kinds import check_kinds


@dataclass(frozen=True)
class Stop:
    """Where a fit was stopped, and what it had cost until then.

    ``value`` is the mean negative log-likelihood per answer token on the validation split at
    ``step``; None where the loss was no number any more (``reason`` says which). ``share`` of
    ``of_steps`` is where a sweep had asked to stop; None where a search gave the trial up. The
    schedule that was followed is that of all ``of_steps``. ``averaged``: of how many steps the
    weights were averaged for ``value``, the last one included; None: they were those of ``step``.
    ``ended``: the fit had come to an end of its own before (early stopping), and ``value`` is the
    lowest loss that it had.
    """

    step: int
    value: float | None
    share: float | None = None
    of_steps: int | None = None
    seconds: float | None = None
    tokens: int | None = None
    answer_tokens: int | None = None
    peak_bytes: int | None = None
    reason: str = ""
    averaged: int | None = None
    ended: bool = False

    @property
    def diverged(self) -> bool:
        return self.value is None

    def __str__(self) -> str:
        of = f" of {self.of_steps}" if self.of_steps else ""
        if self.value is None:
            return f"diverged at step {self.step}{of}"
        return f"stopped at step {self.step}{of}, validation loss {self.value:.4f}"


class FitStopped(SizewiseError):  # noqa: N818 — no error: a fit may be asked to stop
    """Leaves a fit that was stopped before its end; its state is saved where it may go on."""

    def __init__(self, stop: Stop, message: str = "") -> None:
        super().__init__(message or str(stop))
        self.stop = stop


def by_loss(loss: float | None, name: str) -> tuple[float, str]:
    """Order of every choice: the validation loss first, without one last; then the name."""
    return (math.inf if loss is None or math.isnan(loss) else loss, name)


def write_stop(run_dir: Path, stop: Stop) -> None:
    write_json(RunDir(run_dir).pruned, sealed(asdict(stop)))


def standing_stop(run_dir: Path) -> Stop | None:
    """Return where the fit of a run stands still; None where it does not, or damage hides it."""
    return _read(RunDir(run_dir).pruned)


def stop_at(run_dir: Path, share: float) -> Stop | None:
    """Return where a fit was stopped at a share of its steps, also if it has gone on since.

    One that diverged on the way there has no loss at any later share either.
    """
    stops = list(_stops(run_dir))
    there = (stop for stop in stops if stop.share == share)
    diverged = (stop for stop in stops if stop.share is not None and stop.diverged)
    return next(there, None) or next(diverged, None)


def is_past(run_dir: Path, share: float) -> bool:
    """Whether a fit is known to have come further than a share of its steps."""
    return any(stop.share is not None and stop.share > share for stop in _stops(run_dir))


def go_on(run_dir: Path) -> None:
    """Let a stopped fit go on; where it had stopped stays on record, a file for each rung.

    Two processes may ask for it at the same time: one of them does it.
    """
    run = RunDir(run_dir)
    if run.pruned.exists():
        stop = standing_stop(run_dir)
        with suppress(FileNotFoundError):
            run.pruned.replace(run.passed_rung(stop.share if stop else None))


def _stops(run_dir: Path) -> Iterator[Stop]:
    """Every stop of a fit that is on record; damaged ones are none."""
    run = RunDir(run_dir)
    for path in (run.pruned, *run.passed_rungs):
        if (stop := _read(path)) is not None:
            yield stop


def _read(path: Path) -> Stop | None:
    record = read_json(path)
    try:
        plain = unsealed(record or {})
        check_kinds(plain, Stop)
        return Stop(**plain)
    except (ValueError, TypeError):
        return None
