"""The estimate of a sweep before it starts: said, kept with its plan, and held against the end."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sizewise.files import read_json, write_json
from sizewise.job.submit import DEFAULT_FUNCTION
from sizewise.record.directories import SweepDir
from sizewise.record.spending import at_most, money
from sizewise.sweep.estimate.calibration import (
    FOLDER,
    Found,
    calibrate,
    kept,
    kind_key,
    representatives,
)
from sizewise.sweep.estimate.outgoing import Outgoing, outgoing
from sizewise.sweep.estimate.work import (
    NOT_YET,
    Costs,
    Forecast,
    Piece,
    Stages,
    forecast,
    stages,
)
from sizewise.sweep.launch.local_launcher import LocalBackend, available_cores
from sizewise.sweep.launch.packing import ALONE
from sizewise.sweep.launch.slot import Slot
from sizewise.sweep.plan import Plan
from sizewise.words import plural, size

log = logging.getLogger(__name__)
ELSEWHERE = "its jobs run on other machines, of which this one says nothing"
# The report at the end, and the process of the command itself.
AROUND = 10.0


@dataclass(frozen=True)
class Estimate:
    """What a command is going to take.

    Attributes:
        seconds: until it is through; None where no job is known, or not every one.
        low: as short as it may well be.
        high: as long as it may well be.
        workers: how many jobs run at once.
        work: seconds of all workers by what they go into.
        jobs: seconds of each job by its directory's name.
        later: seconds of jobs that only a choice of learning rates will name.
        unknown: reasons why jobs are not in these seconds, and how many jobs each keeps out.
        refused: those of the reasons for which jobs will fail, and the names of these jobs.
        memory_bytes: of all jobs at once, by the planner; None where that is not known.
        outgoing: texts for servers, judges and teachers.
    """

    seconds: float | None
    low: float | None
    high: float | None
    workers: int
    work: Mapping[str, float]
    jobs: Mapping[str, float]
    later: Sequence[float]
    unknown: Mapping[str, int]
    refused: Mapping[str, Sequence[str]] = field(default_factory=dict)
    memory_bytes: int | None = None
    outgoing: Sequence[Outgoing] = field(default_factory=tuple)

    @property
    def money(self) -> float | None:
        known = [each.money for each in self.outgoing if each.money is not None]
        return sum(known) if known else None


def estimate_sweep(
    plan: Plan,
    backend: Any,
    limit: int | None = None,
    peaks: Mapping[str, int] | None = None,
    packing: Any = "off",
) -> Estimate | None:
    """Estimate what a plan takes; None where nothing is left to do, jobs are another program's, or
    nothing was ever measured and nothing is asked of servers, judges and teachers.

    Args:
        plan: what is to be done.
        backend: sizewise's launcher, or None for one of Hydra's own.
        limit: jobs that are started at most.
        peaks: bytes of the jobs by name. Given, what is not known yet is measured now; without,
            only what was measured before counts, and this costs nothing.
        packing: as ``sweep.packing``. What jobs save that share passes is counted where it was
            measured before.
    """
    expected = stages(plan, limit)
    fewest, most = expected, expected
    if limit is None and _margins_ahead(plan):
        fewest, most = stages(plan, near=0.0), stages(plan, near=1.0)
    every = [piece for planned in (expected, fewest, most) for stage in planned for piece in stage]
    pieces = [piece for stage in most for piece in stage]
    if not pieces or any(piece.job.function != DEFAULT_FUNCTION for piece in pieces):
        return None
    cache = Path(str((pieces[0].config.get("paths") or {}).get("cache", ".cache/sizewise")))
    never = peaks is None and not (cache / FOLDER).is_dir()
    if never and not outgoing([(piece.job, NOT_YET, piece.weight) for piece in pieces]):
        return None
    places, elsewhere = _places(backend, _most_at_once(plan, limit))
    jobs = {piece.job.identity.hash: piece.job for piece in every}
    keys = {i: kind_key(job.config, len(places), places[0].threads) for i, job in jobs.items()}
    chosen = representatives(jobs, keys)
    if peaks is None:
        found: Found = {} if elsewhere else kept(chosen, cache)
    else:
        found = calibrate(chosen, places, cache, elsewhere)
    workers = min(len(places), max(map(len, most)))
    here = backend is not None and not elsewhere
    packs = backend.packing(packing, [*jobs.values()]) if here else ALONE
    paces = packs.paces([*jobs.values()], workers)
    by_stages = here and backend.by_stages(packing)

    def forecast_of(planned: Stages) -> Forecast:
        if by_stages:  # as if all were of one bracket
            planned = [[replace(piece, bracket=None) for piece in stage] for stage in planned]
        return forecast(planned, Costs(found, keys, workers, cache, paces, plan.as_given))

    likely = forecast_of(expected)
    bounds = [forecast_of(planned) for planned in (fewest, most) if planned is not expected]
    known = [
        (p.job, found.get(keys[p.job.identity.hash], NOT_YET), p.weight if p.end >= 1 else 0.0)
        for p in pieces
    ]
    memory = _at_once(peaks, pieces, workers)
    refused: dict[str, list[str]] = {}
    for name, job in jobs.items():
        if (measured := found.get(keys[name], NOT_YET)).refused:
            refused.setdefault(measured.reason, []).append(job.identity.slug)
    estimate = _summed([likely, *bounds], workers, memory, outgoing(known))
    return replace(estimate, refused=refused)


def _margins_ahead(plan: Plan) -> bool:
    """Whether losses that are still to come decide how many go on from a rung."""
    undecided = [look.bracket for look in plan.looks if not look.decided]
    return any(r.least < r.survivors for bracket in undecided for r in bracket.rungs)


def _most_at_once(plan: Plan, limit: int | None) -> int:
    """How many jobs may start side by side when nothing is done yet.

    Kinds are measured with as many workers, and so they keep their names while jobs end.
    """
    chosen = {j.identity.hash for b in plan.brackets for jobs in b.further.values() for j in jobs}
    first = len(plan.pool or plan.jobs) - len(chosen)
    return max(1, first if limit is None else min(first, limit))


def _places(backend: Any, jobs: int) -> tuple[list[Slot], str]:
    """Where so many jobs run, as far as that is here; else one place, and why it says nothing."""
    if isinstance(backend, LocalBackend):
        return backend.places(jobs), ""
    alone = [Slot(0, None, available_cores())]
    return alone, "" if backend is None else ELSEWHERE


def _at_once(peaks: Mapping[str, int] | None, pieces: Sequence[Piece], workers: int) -> int | None:
    """Bytes of the largest jobs that may run side by side."""
    names = {piece.job.identity.slug for piece in pieces}
    known = sorted((b for n, b in (peaks or {}).items() if n in names), reverse=True)
    return sum(known[:workers]) if known else None


def _summed(
    forecasts: Sequence[Forecast], workers: int, memory: int | None, texts: Sequence[Outgoing]
) -> Estimate:
    """The first of the forecasts, with an interval that holds those of all."""
    found = forecasts[0]
    known = bool(found.jobs)
    return Estimate(
        seconds=found.seconds + AROUND if known else None,
        low=min((f.seconds + AROUND) * max(0, 1 - f.doubt) for f in forecasts) if known else None,
        high=max((f.seconds + AROUND) * (1 + f.doubt) for f in forecasts) if known else None,
        workers=workers,
        work=found.work,
        jobs=found.jobs,
        later=found.later,
        unknown=found.unknown,
        memory_bytes=memory,
        outgoing=tuple(texts),
    )


DRY_RUN = "sweep.dry_run=true"


def sentences(estimate: Estimate, measuring: str = DRY_RUN) -> Iterator[str]:
    """Say an estimate in words, one line each.

    ``measuring``: what to type for that which was not measured yet.
    """
    workers = plural(estimate.workers, "worker")
    if estimate.seconds is not None:
        work = sum(estimate.work.values())
        shares = ", ".join(f"{n} {s / work:.0%}" for n, s in estimate.work.items() if s)
        yield (
            f"Time: about {span(estimate.seconds, estimate.low, estimate.high)} with {workers} on "
            f"this machine, {span(work)} of work in all ({shares}), from a few steps and answers "
            "that were timed here."
        )
    for reason, count in estimate.unknown.items():
        without = "Without" if estimate.seconds is not None else "Time is not known for"
        if reason in estimate.refused:
            continue
        how = f" ({measuring} does)" if reason == NOT_YET.reason else ""
        yield f"{without} {plural(count, 'job')}: {reason.rstrip('.')}{how}."
    if estimate.memory_bytes is not None:
        yield f"Memory: at most about {size(estimate.memory_bytes)} at once with {workers}."
    for each in estimate.outgoing:
        if each.texts or not each.unknown:
            yield _texts_sentence(each)
        if each.unknown:
            yield _unknown_sentence(each, measuring)
    if estimate.money is not None:
        missing = any(each.unknown and each.priced for each in estimate.outgoing)
        beside = "without what is not known" if missing else "in all"
        yield f"Money: {at_most(estimate.money)} {beside}."


def _texts_sentence(each: Outgoing) -> str:
    price = "" if each.money is None else f", {at_most(each.money)}"
    return (
        f"Texts: {each.texts:,} for {_whose(each)} (about {each.tokens:,} tokens){price}"
        f"{_spent(each)}; what was answered before is not asked again."
    )


def _unknown_sentence(each: Outgoing, measuring: str) -> str:
    what = "texts and money" if each.priced else "texts"
    what, spent = (f"Further {what}", "") if each.texts else (what.capitalize(), _spent(each))
    if each.unknown == NOT_YET.reason:
        return f"{what} for {_whose(each)} are not known yet{spent}; {measuring} counts them."
    return f"{what} for {_whose(each)} are not known{spent}: {each.unknown}."


def _whose(each: Outgoing) -> str:
    where = f" at {each.place}" if each.place else " (on this machine)"
    return f"{each.role} by {each.model}{where}"


def _spent(each: Outgoing) -> str:
    return f" ({money(each.spent)} spent already)" if each.spent else ""


UNITS = ((3600.0, "h"), (60.0, "min"))


def span(seconds: float, low: float | None = None, high: float | None = None) -> str:
    """``6.0 min (5.0–8.0)``: a duration with its interval, all in one unit."""
    unit, name = next((each for each in UNITS if seconds >= 2 * each[0]), (1.0, "s"))
    digits = 1 if unit > 1 and seconds / unit < 10 else 0
    told = [f"{value / unit:.{digits}f}" for value in (seconds, low, high) if value is not None]
    return f"{told[0]} {name}" + (f" ({told[1]}–{told[2]})" if len(told) == 3 else "")


# More computing than planned by this factor is no other program's doing.
FITS = 1.25


def comparison(estimate: Estimate | None, took: float, computed: float = 0.0) -> str:
    """``Planned 6.0 min (5.0–8.0), took 7.0 min.``

    ``computed``: seconds of computing by all processes. Where it took longer than may well be, but
    not more computing than planned, the machine was busy with something else, which is said.
    """
    if estimate is None or estimate.seconds is None:
        return f"Took {span(took)}."
    partly = " (without the jobs that were not known)" if estimate.unknown else ""
    planned = span(estimate.seconds, estimate.low, estimate.high)
    work = sum(estimate.work.values()) + AROUND
    busy = took > (estimate.high or 0.0) and 0 < computed <= FITS * work
    why = (
        f": the machine had other work to do ({span(computed)} of computing, {span(work)} planned)"
        if busy and not estimate.unknown
        else ""
    )
    return f"Planned {planned}{partly}, took {span(took)}{why}."


ESTIMATE, COMMANDS = "estimate", "commands"


def kept_record(sweep_dir: Path, estimate: Estimate | None) -> dict[str, Any]:
    """What ``sweep.json`` says of estimates: the last one, and what earlier commands took."""
    before = read_json(SweepDir(sweep_dir).plan) or {}
    old = before.get(ESTIMATE) or {}
    found = {COMMANDS: before[COMMANDS]} if before.get(COMMANDS) else {}
    if estimate is None or estimate.seconds is None:
        # What was to come has names by now, as far as it still is to come.
        return {**found, **({ESTIMATE: {**old, "later": []}} if old else {})}
    new = asdict(estimate)
    # A job at work has what it once shared with others by now; its whole stays what it was.
    planned = old.get("jobs") or {}
    whole = {name: max(s, planned.get(name, s)) for name, s in new["jobs"].items()}
    new["jobs"] = {**planned, **whole}
    return {**found, ESTIMATE: new}


def command_record(
    estimate: Estimate | None, took: float, computed: float, jobs: int
) -> dict[str, Any]:
    """What one command took, in seconds that passed and of computing, beside what was planned."""
    planned = estimate and {"seconds": estimate.seconds, "low": estimate.low, "high": estimate.high}
    return {
        "jobs": jobs,
        "planned": planned,
        "took": round(took, 1),
        "computed": round(computed, 1),
    }


def note_command(sweep_dir: Path, record: dict[str, Any]) -> None:
    """Add what a command took to ``sweep.json``."""
    path = SweepDir(sweep_dir).plan
    if (plan := read_json(path)) is not None:
        write_json(path, {**plan, COMMANDS: [*plan.get(COMMANDS, []), record]})
