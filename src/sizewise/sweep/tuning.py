"""The learning rates of a sweep: screened with one seed, the best of each configuration kept.

Every decision is a function of what stands in the run directories, so that any number of launchers
on a sweep's directory, and the same command after a kill, come to the same one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from sizewise.config import TuningConfig
from sizewise.files import hash_text
from sizewise.job.submit import Job
from sizewise.record.directories import RunDir
from sizewise.record.identity import trains
from sizewise.record.state import JobFailure, JobState, finished, is_done, job_state
from sizewise.record.stops import (
    AUDITED,
    DIVERGED,
    FAILED,
    KEPT,
    OPEN,
    STOPPED,
    Candidate,
    CellRecord,
    Stop,
    TuningRecord,
    by_loss,
    stop_at,
)

RATE = "optimizer.lr"
END = 1.0


def rates_of(config: Mapping[str, Any], given: bool, tuning: TuningConfig) -> list[float | None]:
    """Return the learning rates to try for a job; None is its own.

    ``given``: the command or the arm sets ``optimizer.lr`` itself, which is then left alone.
    """
    if not tuning.on or given or not trains(config):
        return [None]
    own = float(config["optimizer"]["lr"])
    return [None if factor == 1 else float(f"{own * factor:.4g}") for factor in tuning.lr_factors]


@dataclass(frozen=True)
class Cell:
    """Jobs of one trained configuration that differ in learning rate and seed only.

    ``candidates``: one per learning rate, with the first seed. ``further``: the jobs with the other
    seeds, by the identity of the candidate whose rate they have.
    """

    name: str
    candidates: tuple[Job, ...]
    further: Mapping[str, tuple[Job, ...]]
    rung: float

    @property
    def share(self) -> float:
        """Where candidates are compared: at the rung, unless one of them went past it unseen."""
        unseen = (
            is_done(c.run_dir) and stop_at(c.run_dir, self.rung) is None for c in self.candidates
        )
        return END if self.rung >= END or any(unseen) else self.rung

    @property
    def jobs(self) -> list[Job]:
        return [*self.candidates, *(job for jobs in self.further.values() for job in jobs)]

    @property
    def seeds(self) -> int:
        """Number of further seeds that the one that is kept is run with."""
        return max((len(jobs) for jobs in self.further.values()), default=0)

    def look(self) -> Choice:
        """Read what is known of every candidate now."""
        share = self.share
        found = {c.identity.slug: _figure(c, share) for c in self.candidates}
        return Choice(self, share, found)


@dataclass(frozen=True)
class Choice:
    """What a cell's candidates have come to; ``figures`` by slug, None where there is none yet."""

    cell: Cell
    share: float
    figures: Mapping[str, Stop | None]

    @property
    def missing(self) -> list[Job]:
        return [c for c in self.cell.candidates if self.figures[c.identity.slug] is None]

    @cached_property
    def kept(self) -> Job | None:
        """The candidate with the lowest validation loss; None if one lacks or all diverged."""
        if self.missing:
            return None
        best = min(self.cell.candidates, key=self._order)
        figure = self.figures[best.identity.slug]
        return None if figure is None or figure.diverged else best

    def _order(self, job: Job) -> tuple[float, str]:
        figure = self.figures[job.identity.slug]
        return by_loss(figure.value if figure else None, job.identity.slug)

    def audited(self, share: float) -> list[Job]:
        """The stopped candidates that are run to their end, drawn by their identity."""
        if self.kept is None:
            return []
        stopped = [c for c in self.cell.candidates if c is not self.kept]
        whole = [c for c in stopped if not getattr(self.figures[c.identity.slug], "diverged", True)]
        return [job for job in whole if drawn(job.identity.hash) < share]

    @property
    def further(self) -> tuple[Job, ...]:
        """The further seeds of the one that is kept; none before it is."""
        return self.cell.further.get(self.kept.identity.hash, ()) if self.kept else ()

    def to_run(self, audit: float) -> list[Job]:
        """The jobs to run next, with where they are to stop."""
        if self.kept is None:
            return [replace(job, stop_at=self.share) for job in self.missing]
        whole = [self.kept, *self.further]
        audits = [replace(job, stop_at=END) for job in self.audited(audit)]
        return [job for job in (*whole, *audits) if not is_done(job.run_dir) and not _ended(job)]

    def record(self, audit: float) -> CellRecord:
        audited = {job.identity.slug for job in self.audited(audit)}
        return CellRecord(
            self.cell.name, self.share, [self._record(c, audited) for c in self.cell.candidates]
        )

    def _record(self, job: Job, audited: set[str]) -> Candidate:
        slug = job.identity.slug
        stop, outcome = self.figures[slug], finished(job.run_dir)
        state = STOPPED
        if stop is None:
            state = FAILED if job_state(job.run_dir) == JobState.FAILED else OPEN
        elif stop.diverged:
            state = DIVERGED
        elif self.kept is not None and slug == self.kept.identity.slug:
            state = KEPT
        elif slug in audited:
            state = AUDITED
        return Candidate(
            run=slug,
            lr=float(job.config["optimizer"]["lr"]),
            state=state,
            value=stop.value if stop else None,
            step=stop.step if stop else None,
            of_steps=stop.of_steps if stop else None,
            seconds=stop.seconds if stop else None,
            tokens=stop.tokens if stop else None,
            final=outcome.validation.get("val_loss") if outcome else None,
        )


def _ended(job: Job) -> bool:
    """Whether a job that may diverge has done so."""
    stop = stop_at(job.run_dir, END) if job.stop_at is not None else None
    return stop is not None and stop.diverged


def drawn(identity: str) -> float:
    """Return a number in [0, 1) that a run's identity alone decides."""
    return int(hash_text(f"audit {identity}", 12), 16) / 16**12


def _figure(job: Job, share: float) -> Stop | None:
    """Return where a candidate was at a share of its steps; of one at its end, its best loss."""
    stop = stop_at(job.run_dir, share)
    if stop is not None or share < END:
        return stop
    outcome = finished(job.run_dir)
    if outcome is None or "val_loss" not in outcome.validation:
        return None
    cost = outcome.cost
    return Stop(
        step=cost.train_steps or 0,
        value=outcome.validation["val_loss"],
        share=END,
        of_steps=cost.train_steps,
        seconds=cost.train_seconds,
        tokens=cost.train_tokens,
    )


def make_cells(jobs: Sequence[Job], tuning: TuningConfig) -> list[Cell]:
    """Gather the trained jobs that differ in learning rate and seed only, where there are several.

    Those with a single rate have nothing to choose and are no cell.
    """
    if not (tuning.on and tuning.screen):
        return []
    groups: dict[str, dict[float, list[Job]]] = {}
    for job in jobs:
        if trains(job.config):
            rates = groups.setdefault(_key(job), {})
            rates.setdefault(float(job.config["optimizer"]["lr"]), []).append(job)
    several = [rates for rates in groups.values() if len(rates) > 1]
    names = _names([next(iter(rates.values()))[0] for rates in several])
    return [_cell(name, rates, tuning.rung) for name, rates in zip(names, several, strict=True)]


def _cell(name: str, rates: Mapping[float, list[Job]], rung: float) -> Cell:
    candidates = tuple(jobs[0] for jobs in rates.values())
    further = {jobs[0].identity.hash: tuple(jobs[1:]) for jobs in rates.values()}
    return Cell(name, candidates, further, rung)


def _key(job: Job) -> str:
    config = {key: value for key, value in job.identity.config.items() if key != "seed"}
    config["optimizer"] = {k: v for k, v in config["optimizer"].items() if k != "lr"}
    return json.dumps(config, sort_keys=True, default=str)


def _names(jobs: Sequence[Job]) -> list[str]:
    """Name configurations by the overrides in which they differ; a single one by its directory."""
    kept = [
        [text for text in job.overrides if not text.startswith((f"{RATE}=", "seed="))]
        for job in jobs
    ]
    shared = set.intersection(*map(set, kept)) if len(kept) > 1 else set()
    said = [" ".join(text for text in texts if text not in shared) for texts in kept]
    plain = [job.identity.slug.rpartition("_s")[0] or job.identity.slug for job in jobs]
    return [name or fallback for name, fallback in zip(said, plain, strict=True)]


def tuning_record(cells: Sequence[Cell], audit: float) -> TuningRecord:
    return TuningRecord([cell.look().record(audit) for cell in cells], audit)


def all_diverged(cells: Iterable[Cell]) -> list[JobFailure]:
    """Return a failure for every cell of which no learning rate gave a number."""
    return [
        JobFailure(
            str(cell.candidates[0].run_dir),
            f"every learning rate that was tried diverged ({cell.name}). Try a lower optimizer.lr",
            str(RunDir(cell.candidates[0].run_dir).log),
        )
        for cell in cells
        if (choice := cell.look()).kept is None and not choice.missing
    ]
