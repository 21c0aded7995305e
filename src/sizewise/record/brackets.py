"""What a sweep tried before it spent its seeds: candidates, who was kept, and the regret."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from sizewise.files import read_json, sealed, unsealed, write_json
from sizewise.record.directories import SweepDir
from sizewise.record.kinds import check_kinds
from sizewise.record.stops import by_loss

KEPT, STOPPED, DIVERGED, AUDITED = "kept", "stopped", "diverged", "audited"
FAILED, OPEN = "failed", "open"


@dataclass(frozen=True)
class Candidate:
    """One configuration at one learning rate, run with the first seed.

    ``state``: ``kept`` (went on to its end), ``stopped``, ``diverged``, ``audited`` (stopped, but
    run to its end to see whether that was right), ``failed`` or ``open`` (not decided yet).
    ``value`` is the loss at the last rung that it was compared at, and what it had cost until then
    stands beside it; ``values`` has one for every rung it came to. ``final`` is the best validation
    loss of the whole fit, where it was run. ``cell`` names its configuration without seed and rate.
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
    cell: str = ""
    values: list[float | None] = field(default_factory=list)


def _order(candidate: Candidate) -> tuple[float, str]:
    return by_loss(candidate.value, candidate.run)


@dataclass(frozen=True)
class CellRecord:
    """One trained configuration and the learning rates it was tried with."""

    name: str
    candidates: list[Candidate]

    @property
    def kept(self) -> Candidate | None:
        return min((c for c in self.candidates if c.state == KEPT), key=_order, default=None)

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
class RungRecord:
    """Where candidates are compared, as a share of the steps (1: at the end), and who goes on.

    The ``keep`` best do, as far as their loss is at most ``margin`` (a share of it) above the
    lowest, and in any case the best of every combination of values of the keys ``each``
    (``configuration``: of everything but seed and learning rate).
    """

    share: float
    keep: int
    each: list[str] = field(default_factory=list)
    margin: float | None = None


@dataclass(frozen=True)
class BracketRecord:
    """Candidates whose losses were compared. ``schedule``: the learning rate's over all steps."""

    name: str
    rungs: list[RungRecord]
    candidates: list[Candidate]
    schedule: str = ""

    @property
    def kept(self) -> list[Candidate]:
        """Those that went on to the end, the best by the loss at the last rung first."""
        return sorted((c for c in self.candidates if c.state == KEPT), key=_order)

    @property
    def stopped(self) -> list[Candidate]:
        """Those that were not kept."""
        return [candidate for candidate in self.candidates if candidate.state != KEPT]

    @property
    def cells(self) -> list[CellRecord]:
        found: dict[str, list[Candidate]] = {}
        for candidate in self.candidates:
            found.setdefault(candidate.cell, []).append(candidate)
        return [CellRecord(name, candidates) for name, candidates in found.items()]

    @property
    def regret(self) -> float | None:
        """How much higher the best final loss of the kept is than that of those audited.

        As a share of the latter, 0 where the winner was kept; None before both have ended.
        """
        kept = [c.final for c in self.kept if c.final is not None]
        audited = [c.final for c in self.candidates if c.state == AUDITED and c.final is not None]
        if not kept or not audited:
            return None
        return max(0.0, min(kept) / min(audited) - 1) if min(audited) else 0.0


@dataclass(frozen=True)
class TuningRecord:
    """All brackets of a sweep; written after every stage. ``audit`` is the share asked for."""

    brackets: list[BracketRecord]
    audit: float = 0.0

    @property
    def stopped(self) -> list[tuple[BracketRecord, Candidate]]:
        """Every candidate that was not kept, with its bracket."""
        return [(bracket, tried) for bracket in self.brackets for tried in bracket.stopped]

    @property
    def cells(self) -> list[CellRecord]:
        return [cell for bracket in self.brackets for cell in bracket.cells]


def write_tuning(sweep_dir: Path, record: TuningRecord) -> None:
    write_json(SweepDir(sweep_dir).tuning, sealed(asdict(record)))


def read_tuning(sweep_dir: Path) -> TuningRecord | None:
    """Return what a sweep tried; None where it tried nothing, or the record is damaged."""
    record = read_json(SweepDir(sweep_dir).tuning)
    try:
        plain: dict[str, Any] = unsealed(record or {})
        if "cells" in plain:
            plain = _of_cells(plain)
        check_kinds(plain, TuningRecord)
        brackets = [_bracket(**each) for each in plain["brackets"]]
        return TuningRecord(brackets, plain["audit"]) if brackets else None
    except (ValueError, TypeError, KeyError):
        return None


def _bracket(rungs: list[Any], candidates: list[Any], **rest: Any) -> BracketRecord:
    return BracketRecord(
        rungs=[RungRecord(**each) for each in rungs],
        candidates=[Candidate(**each) for each in candidates],
        **rest,
    )


def _of_cells(plain: dict[str, Any]) -> dict[str, Any]:
    """Read a record of when every configuration was a bracket of its own, with one rung."""
    brackets = [
        {
            "name": cell["name"],
            "rungs": [{"share": cell["share"], "keep": 1}],
            "candidates": [
                {**c, "cell": cell["name"], "values": [c.get("value")]} for c in cell["candidates"]
            ],
        }
        for cell in plain["cells"]
    ]
    return {"brackets": brackets, "audit": plain["audit"]}


def audit_sentence(records: Iterable[TuningRecord]) -> str:
    """Say how often the winner was kept, as far as some of the stopped were run to their end."""
    brackets = [bracket for record in records for bracket in record.brackets]
    regrets = [regret for b in brackets if (regret := b.regret) is not None]
    if not regrets:
        return ""
    ended = sum(c.state == AUDITED and c.final is not None for b in brackets for c in b.candidates)
    right, count = sum(regret == 0 for regret in regrets), len(regrets)
    return (
        f"Audit: {ended} of the stopped were run to their end; the winner had been kept in {right} "
        f"of {count} bracket{'s'[: count != 1]}, mean regret {sum(regrets) / count:.2%} of the "
        "validation loss."
    )


def tuning_sentence(record: TuningRecord) -> str:
    """Say what was tried, where it was stopped and what that cost."""
    cells = len(record.cells)
    tried = sum(len(bracket.candidates) for bracket in record.brackets)
    counts = {len(cell.candidates) for cell in record.cells}
    rates = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    several = f" × {rates} learning rates" if counts != {1} else ""
    shares = sorted({rung.share for bracket in record.brackets for rung in bracket.rungs})
    seconds = sum(c.seconds or 0.0 for _, c in record.stopped)
    return (
        f"Tuned: {cells} configuration{'s'[: cells != 1]}{several} with one seed each, compared by "
        f"validation loss {where(shares)}; {len(record.stopped)} of {tried} went no further "
        f"({seconds:.0f} s of training)."
    )


def where(shares: Sequence[float]) -> str:
    """``after 1/3 of the steps or at the end`` for 1/3 and 1."""
    said = ["at the end" if s >= 1 else f"after {share_text(s)} of the steps" for s in shares]
    return " or ".join(said)


def share_text(share: float) -> str:
    """``1/3`` for 0.333, ``0.45`` for what is no plain fraction."""
    near = Fraction(share).limit_denominator(10)
    return str(near) if abs(float(near) - share) < 0.002 else f"{share:g}"
