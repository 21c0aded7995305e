"""Fits that were stopped before their end: what they had come to, and what was kept instead."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from sizewise.errors import SizewiseError
from sizewise.files import read_json, sealed, unsealed, write_json
from sizewise.record.directories import RunDir, SweepDir
from sizewise.record.kinds import check_kinds


@dataclass(frozen=True)
class Stop:
    """Where a fit was stopped, and what it had cost until then.

    ``value`` is the mean negative log-likelihood per answer token on the validation split at
    ``step``; None where the loss was no number any more (``reason`` says which). ``share`` of
    ``of_steps`` is where a sweep had asked to stop; None where a search gave the trial up. The
    schedule that was followed is that of all ``of_steps``.
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
    for stop in (standing_stop(run_dir), _read(RunDir(run_dir).rung)):
        if stop is not None and stop.share is not None and (stop.share == share or stop.diverged):
            return stop
    return None


def go_on(run_dir: Path) -> None:
    """Let a stopped fit go on; where it had stopped stays on record."""
    run = RunDir(run_dir)
    if run.pruned.exists():
        run.pruned.replace(run.rung)


def _read(path: Path) -> Stop | None:
    record = read_json(path)
    try:
        plain = unsealed(record or {})
        check_kinds(plain, Stop)
        return Stop(**plain)
    except (ValueError, TypeError):
        return None


KEPT, STOPPED, DIVERGED, AUDITED = "kept", "stopped", "diverged", "audited"
FAILED, OPEN = "failed", "open"


@dataclass(frozen=True)
class Candidate:
    """One learning rate of a cell, run with the first seed.

    ``state``: ``kept`` (went on), ``stopped``, ``diverged``, ``audited`` (stopped, but run to its
    end to see whether that was right), ``failed`` or ``open`` (no figure yet). ``value`` is the
    validation loss that was compared, ``final`` the best one of the whole fit, where it was run.
    """

    run: str
    lr: float
    state: str
    value: float | None = None
    step: int | None = None
    of_steps: int | None = None
    seconds: float | None = None
    tokens: int | None = None
    final: float | None = None


@dataclass(frozen=True)
class CellRecord:
    """One trained configuration and the learning rates it was tried with.

    ``share`` of the steps is where they were compared (1: at the end).
    """

    name: str
    share: float
    candidates: list[Candidate]

    @property
    def kept(self) -> Candidate | None:
        return next((c for c in self.candidates if c.state == KEPT), None)

    @property
    def edge(self) -> str:
        """``lowest`` or ``highest`` where the kept rate is that of all tried, else empty.

        Then the best one may lie beyond.
        """
        rates = [candidate.lr for candidate in self.candidates]
        if self.kept is None or len(set(rates)) < 2:
            return ""
        return {min(rates): "lowest", max(rates): "highest"}.get(self.kept.lr, "")


@dataclass(frozen=True)
class TuningRecord:
    """What a sweep tried before it spent its seeds: written after every choice."""

    cells: list[CellRecord]
    audit: float = 0.0

    @property
    def stopped(self) -> list[tuple[CellRecord, Candidate]]:
        """Every candidate that was not kept, with its cell."""
        return [(cell, c) for cell in self.cells for c in cell.candidates if c.state != KEPT]

    @property
    def audited(self) -> list[tuple[Candidate, Candidate]]:
        """Kept and stopped candidate of every audit whose two runs have ended."""
        return [
            (cell.kept, c)
            for cell, c in self.stopped
            if c.state == AUDITED and c.final is not None
            if cell.kept is not None and cell.kept.final is not None
        ]


def write_tuning(sweep_dir: Path, record: TuningRecord) -> None:
    write_json(SweepDir(sweep_dir).tuning, sealed(asdict(record)))


def read_tuning(sweep_dir: Path) -> TuningRecord | None:
    """Return what a sweep tried; None where it tuned nothing, or the record is damaged."""
    record = read_json(SweepDir(sweep_dir).tuning)
    try:
        plain: dict[str, Any] = unsealed(record or {})
        check_kinds(plain, TuningRecord)
        cells = [
            CellRecord(c["name"], c["share"], [Candidate(**each) for each in c["candidates"]])
            for c in plain["cells"]
        ]
        return TuningRecord(cells, plain["audit"]) if cells else None
    except (ValueError, TypeError, KeyError):
        return None


def audit_sentence(records: Iterable[TuningRecord]) -> str:
    """Say how often the choice was right among those run to the end; empty without any audit."""
    pairs = [pair for record in records for pair in record.audited]
    if not pairs:
        return ""
    regrets = [_regret(kept, other) for kept, other in pairs]
    right = sum(regret <= 0 for regret in regrets)
    mean = sum(max(regret, 0.0) for regret in regrets) / len(pairs)
    return (
        f"Audit: {len(pairs)} of the stopped were run to their end; the kept one was the better in "
        f"{right} of {len(pairs)}, mean regret {mean:.2%} of the "
        "validation loss."
    )


def _regret(kept: Candidate, other: Candidate) -> float:
    """Return how much higher the kept one's final loss is, as a share of the other's."""
    assert kept.final is not None
    assert other.final is not None
    return (kept.final - other.final) / other.final if other.final else 0.0


def tuning_sentence(record: TuningRecord) -> str:
    """Say what was tried, where it was stopped and what that cost."""
    tried = sum(len(cell.candidates) for cell in record.cells)
    counts = {len(cell.candidates) for cell in record.cells}
    rates = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    shares = sorted({cell.share for cell in record.cells})
    seconds = sum(c.seconds or 0.0 for _, c in record.stopped)
    count = len(record.cells)
    return (
        f"Tuned: {count} configuration{'s'[: count != 1]} × {rates} learning rates with one seed "
        f"each, compared by validation loss {_where(shares)}; {len(record.stopped)} of {tried} "
        f"went no further ({seconds:.0f} s of training)."
    )


def _where(shares: Sequence[float]) -> str:
    said = ["at the end" if s >= 1 else f"after {share_text(s)} of the steps" for s in shares]
    return " or ".join(said)


def share_text(share: float) -> str:
    """``1/3`` for 0.333, ``0.45`` for what is no plain fraction."""
    near = Fraction(share).limit_denominator(10)
    return str(near) if abs(float(near) - share) < 0.002 else f"{share:g}"
