"""The plan of a sweep: every job composed, checked, named and looked up before any starts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sizewise.config import SweepConfig
from sizewise.errors import ConfigError, SweepError
from sizewise.sweep.compose import JobComposer
from sizewise.sweep.identity import base_key
from sizewise.sweep.jobs import Job, make_sweep_job
from sizewise.sweep.state import JobState, job_state

FINAL = (JobState.DONE, JobState.PRUNED)


@dataclass(frozen=True)
class Plan:
    """The distinct jobs of a sweep in the order they will start, with their states at planning.

    ``asked`` counts the jobs before equal ones were joined.
    """

    sweep_dir: Path
    name: str
    jobs: list[Job]
    states: dict[str, JobState]
    asked: int

    @property
    def done(self) -> list[Job]:
        """Jobs with a result."""
        return [job for job in self.jobs if self.states[job.identity.slug] in FINAL]

    @property
    def to_do(self) -> list[Job]:
        """Jobs still to run, in order."""
        return [job for job in self.jobs if self.states[job.identity.slug] not in FINAL]


def make_plan(
    grid: Iterable[tuple[str, ...]],
    composer: JobComposer,
    sweep_dir: Path,
    sweep: SweepConfig,
    function: str,
) -> Plan:
    """Compose and check every job, join equal ones, and look up what is already done.

    Raises:
        SweepError: some jobs are invalid; every one is named with its reason.
    """
    jobs: dict[str, Job] = {}
    invalid: dict[str, list[str]] = {}
    asked = 0
    name = sweep.name or sweep_dir.name
    for asked, overrides in enumerate(grid, start=1):
        try:
            job = _job(overrides, composer, sweep_dir, name, function)
        except ConfigError as error:
            invalid.setdefault(str(error), []).append(f"job {asked} ({' '.join(overrides)})")
            continue
        jobs.setdefault(job.identity.hash, job)
    if invalid:
        raise SweepError(_refusal(invalid, asked))
    ordered = _ordered(list(jobs.values()), sweep.order)
    states = {job.identity.slug: job_state(job.run_dir) for job in ordered}
    return Plan(sweep_dir, name, _limited(ordered, states, sweep.limit), states, asked)


def _refusal(invalid: dict[str, list[str]], asked: int) -> str:
    """Name every reason once, with the first job it holds for and the number of the others."""
    lines = [
        f"{jobs[0]}{f' and {len(jobs) - 1} more' if len(jobs) > 1 else ''}: {reason}"
        for reason, jobs in invalid.items()
    ]
    more = [f"… and {len(lines) - 20} more reasons"] if len(lines) > 20 else []
    count = sum(map(len, invalid.values()))
    shown = "\n  ".join([*lines[:20], *more])
    return f"{count} of {asked} jobs are invalid; nothing was started.\n  {shown}"


def _job(
    overrides: tuple[str, ...], composer: JobComposer, sweep_dir: Path, name: str, function: str
) -> Job:
    config = composer.compose(list(overrides))
    # The grid itself is not the job's business, its name is: trackers group runs by it.
    config["sweep"] = {"name": name, "dir": str(sweep_dir)}
    return make_sweep_job(config, sweep_dir, overrides, function)


def _ordered(jobs: list[Job], order: str) -> list[Job]:
    """Let jobs that share a base follow one another, bases in the order they first appear."""
    if order == "given":
        return jobs
    ranks: dict[str, int] = {}
    for job in jobs:
        ranks.setdefault(base_key(job.config), len(ranks))
    return sorted(jobs, key=lambda job: ranks[base_key(job.config)])


def _limited(jobs: list[Job], states: dict[str, JobState], limit: int | None) -> list[Job]:
    if limit is None:
        return jobs
    started = [job for job in jobs if states[job.identity.slug] not in FINAL][:limit]
    kept = {job.identity.slug for job in started}
    return [job for job in jobs if states[job.identity.slug] in FINAL or job.identity.slug in kept]
