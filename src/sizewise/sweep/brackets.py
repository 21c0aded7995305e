"""The candidates of a sweep: screened with one seed, the best of each bracket kept.

Tuning a learning rate is the small case (a bracket is one configuration, of which one rate is
kept), halving a grid the large one. Every decision is a function of what stands in the run
directories, so that any number of launchers on a sweep's directory, and the same command after a
kill, come to the same one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from sizewise.files import hash_text
from sizewise.job.submit import Job
from sizewise.record.brackets import (
    AUDITED,
    DIVERGED,
    FAILED,
    KEPT,
    OPEN,
    STOPPED,
    BracketRecord,
    Candidate,
    RungRecord,
    TuningRecord,
)
from sizewise.record.directories import RunDir
from sizewise.record.state import JobFailure, JobState, finished, is_done, job_state
from sizewise.record.stops import Stop, is_past, stop_at
from sizewise.sweep.halving import Fate, Losses, Rung, halve

END = 1.0
CONFIGURATION = ("configuration",)  # the group of a rung at which learning rates are chosen


@dataclass(frozen=True)
class Cell:
    """The jobs of one trained configuration that differ in learning rate and seed only.

    ``candidates``: one per learning rate, with the first seed. ``further``: the jobs with the other
    seeds, by the identity of the candidate whose rate they have.
    """

    name: str
    candidates: tuple[Job, ...]
    further: Mapping[str, tuple[Job, ...]]


@dataclass(frozen=True)
class Bracket:
    """Candidates whose validation losses can be compared, and the rungs where they are."""

    name: str
    cells: tuple[Cell, ...]
    rungs: tuple[Rung, ...]

    @cached_property
    def candidates(self) -> dict[str, Job]:
        """Candidates by the names of their directories."""
        return {job.identity.slug: job for cell in self.cells for job in cell.candidates}

    @cached_property
    def further(self) -> dict[str, tuple[Job, ...]]:
        return {key: jobs for cell in self.cells for key, jobs in cell.further.items()}

    @property
    def jobs(self) -> list[Job]:
        return [*self.candidates.values(), *(job for jobs in self.further.values() for job in jobs)]

    @property
    def seeds(self) -> int:
        """Number of further seeds that whatever is kept is run with."""
        return max((len(jobs) for jobs in self.further.values()), default=0)

    @property
    def survivors(self) -> int:
        """How many are kept where all are within the margins, at least."""
        return min(rung.survivors for rung in self.rungs)

    @property
    def least(self) -> int:
        """How many are kept at least, unless they diverge."""
        return min(rung.least for rung in self.rungs)

    @property
    def most(self) -> int:
        """How many are kept at most."""
        return min(rung.most for rung in self.rungs)

    @property
    def margins(self) -> bool:
        """Whether the losses decide how many are kept."""
        return self.least < self.survivors

    @property
    def halves(self) -> bool:
        """Whether more than the learning rate of each configuration is chosen."""
        return any(rung.each != CONFIGURATION for rung in self.rungs)

    def look(self) -> Look:
        """Read what is known of every candidate now."""
        shares: list[float] = []
        found: list[dict[str, Stop]] = []

        def losses_at(number: int, contenders: Collection[str]) -> Losses:
            run_dirs = {name: self.candidates[name].run_dir for name in contenders}
            share, stops = _compared(run_dirs, self.rungs[number].share)
            shares.append(share)
            found.append({name: stop for name, stop in stops.items() if stop is not None})
            return {name: stop.value for name, stop in found[-1].items()}

        fates = halve(self.candidates, self.rungs, losses_at)
        return Look(self, fates, shares, found)


def _compared(run_dirs: Mapping[str, Path], share: float) -> tuple[float, dict[str, Stop | None]]:
    """Return where candidates are compared, and how each stood there, as far as that is known.

    That is at the rung, unless one of them went past it unseen, as of a sweep without rungs.
    """
    if share < END:
        stops = {name: stop_at(run_dir, share) for name, run_dir in run_dirs.items()}
        unknown = [run_dirs[name] for name, stop in stops.items() if stop is None]
        if not any(is_done(run_dir) or is_past(run_dir, share) for run_dir in unknown):
            return share, stops
    return END, {name: _at_end(run_dir) for name, run_dir in run_dirs.items()}


def _at_end(run_dir: Path) -> Stop | None:
    """Return the best loss of a whole fit."""
    if (stop := stop_at(run_dir, END)) is not None:
        return stop
    outcome = finished(run_dir)
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


@dataclass(frozen=True)
class Look:
    """What a bracket has come to, as far as it is sure.

    ``shares`` and ``found`` (candidate → where it stood) have an entry for each rung.
    """

    bracket: Bracket
    fates: Mapping[str, Fate]
    shares: Sequence[float]
    found: Sequence[Mapping[str, Stop]]

    @property
    def decided(self) -> bool:
        return all(fate.out or self._through(fate) for fate in self.fates.values())

    def _through(self, fate: Fate) -> bool:
        return not fate.out and fate.passed == len(self.bracket.rungs)

    @cached_property
    def kept(self) -> list[Job]:
        """The candidates that surely go on to their end."""
        return [job for n, job in self.bracket.candidates.items() if self._through(self.fates[n])]

    @property
    def further(self) -> list[Job]:
        """The further seeds of what is kept."""
        return [job for kept in self.kept for job in self.bracket.further[kept.identity.hash]]

    @property
    def later(self) -> int:
        """Number of further seeds that are to come, but not known yet.

        About; with margins as many as there are if all that are left are within them.
        """
        left = sum(not fate.out for fate in self.fates.values())
        missing = max(0, min(self.bracket.survivors, left) - len(self.kept))
        return 0 if self.decided else missing * self.bracket.seeds

    @property
    def is_open(self) -> bool:
        """Whether losses that are still to come decide how many are kept."""
        return self.bracket.margins and not self.decided

    @property
    def waiting_for_failed(self) -> tuple[int, int]:
        """How many candidates wait at a rung, and for how many that failed.

        (0, 0) where anybody else is still to come there.
        """
        rungs, jobs = len(self.bracket.rungs), self.bracket.candidates
        undecided = {n: f.passed for n, f in self.fates.items() if not f.out and f.passed < rungs}
        missing = [name for name, passed in undecided.items() if name not in self.found[passed]]
        if not all(self._state(jobs[name], ()) == FAILED for name in missing):
            return 0, 0
        return len(undecided) - len(missing), len(missing)

    @property
    def mixed(self) -> bool:
        """Whether losses of last weights, by an earlier version, met those of mean weights."""
        return any(
            {True, False} == {s.averaged is None for s in found.values() if _is_of_a_rung(s)}
            for found in self.found
        )

    def _stop(self, name: str) -> Stop | None:
        """The last figure that was compared."""
        at = min(self.fates[name].passed, len(self.found) - 1)
        stops = (self.found[number].get(name) for number in range(at, -1, -1))
        return next((stop for stop in stops if stop is not None), None)

    def audited(self, share: float) -> list[Job]:
        """The stopped candidates that are run to their end, drawn by their identity."""
        stopped = [job for name, job in self.bracket.candidates.items() if self._was_stopped(name)]
        return [job for job in stopped if drawn(job.identity.hash) < share]

    def _was_stopped(self, name: str) -> bool:
        stop = self._stop(name)
        return self.fates[name].out and stop is not None and not stop.diverged

    def to_run(self, audit: float) -> list[Job]:
        """The jobs to run next, with where they are to stop."""
        rungs = len(self.bracket.rungs)
        climbing = [
            replace(job, stop_at=self.shares[fate.passed])
            for name, job in self.bracket.candidates.items()
            if not (fate := self.fates[name]).out
            and fate.passed < rungs
            and name not in self.found[fate.passed]
        ]
        audits = [replace(job, stop_at=END) for job in self.audited(audit)]
        whole = [*self.kept, *self.further, *audits]
        return climbing + [job for job in whole if not is_done(job.run_dir) and not _ended(job)]

    def record(self, audit: float) -> BracketRecord:
        audited = {job.identity.slug for job in self.audited(audit)}
        rungs = [
            RungRecord(share, rung.keep, list(rung.each), rung.margin)
            for share, rung in zip(self.shares, self.bracket.rungs, strict=True)
        ]
        jobs = self.bracket.candidates.values()
        schedules = sorted({str(job.config["scheduler"]["name"]) for job in jobs})
        candidates = [
            self._record(job, cell.name, audited)
            for cell in self.bracket.cells
            for job in cell.candidates
        ]
        return BracketRecord(self.bracket.name, rungs, candidates, ", ".join(schedules))

    def _record(self, job: Job, cell: str, audited: Collection[str]) -> Candidate:
        slug = job.identity.slug
        stop, outcome = self._stop(slug), finished(job.run_dir)
        values = [found[slug].value for found in self.found if slug in found]
        return Candidate(
            run=slug,
            lr=float(job.config["optimizer"]["lr"]),
            state=self._state(job, audited),
            value=stop.value if stop else None,
            step=stop.step if stop else None,
            of_steps=stop.of_steps if stop else None,
            seconds=stop.seconds if stop else None,
            tokens=stop.tokens if stop else None,
            final=outcome.validation.get("val_loss") if outcome else None,
            cell=cell,
            values=values,
        )

    def _state(self, job: Job, audited: Collection[str]) -> str:
        slug = job.identity.slug
        fate, stop = self.fates[slug], self._stop(slug)
        if self._through(fate):
            return KEPT
        if fate.out:
            diverged = stop is not None and stop.diverged
            return DIVERGED if diverged else AUDITED if slug in audited else STOPPED
        return FAILED if job_state(job.run_dir) == JobState.FAILED else OPEN


def _is_of_a_rung(stop: Stop) -> bool:
    return not (stop.diverged or stop.ended or stop.share in (None, END))


def _ended(job: Job) -> bool:
    """Whether a job that may diverge has done so."""
    stop = stop_at(job.run_dir, END) if job.stop_at is not None else None
    return stop is not None and stop.diverged


def drawn(identity: str) -> float:
    """Return a number in [0, 1) that a run's identity alone decides."""
    return int(hash_text(f"audit {identity}", 12), 16) / 16**12


def tuning_record(looks: Sequence[Look], audit: float) -> TuningRecord:
    return TuningRecord([look.record(audit) for look in looks], audit)


def all_diverged(brackets: Iterable[Bracket]) -> list[JobFailure]:
    """Return a failure for every bracket of which no candidate gave a number."""
    return [
        JobFailure(
            str(first.run_dir),
            f"every candidate that was tried diverged ({bracket.name}). Try a lower optimizer.lr",
            str(RunDir(first.run_dir).log),
        )
        for bracket in brackets
        if not (look := bracket.look()).kept and look.decided
        for first in [bracket.cells[0].candidates[0]]
    ]
