"""The plan of a sweep: every job composed, checked, named and shown before any starts."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sizewise.composition.jobs import JobComposer
from sizewise.config import SweepConfig
from sizewise.config.register import to_run_config
from sizewise.errors import ConfigError, SizewiseError, SweepError
from sizewise.job.submit import Job, make_sweep_job
from sizewise.record.identity import reuse_key
from sizewise.record.state import JobState, job_state
from sizewise.report.words import literal

log = logging.getLogger(__name__)

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
        return [job for job in self.jobs if self.states[job.identity.slug] in FINAL]

    @property
    def to_do(self) -> list[Job]:
        return [job for job in self.jobs if self.states[job.identity.slug] not in FINAL]


def make_plan(
    grid: Iterable[tuple[str, ...]],
    composer: JobComposer,
    sweep_dir: Path,
    sweep: SweepConfig,
    function: str,
) -> Plan:
    """Compose and check every job, join equal ones, and look up what is already done.

    Of invalid jobs SweepError names every one with its reason.
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
        raise SweepError(refusal(invalid, asked))
    ordered = _ordered(list(jobs.values()), sweep.order)
    states = {job.identity.slug: job_state(job.run_dir) for job in ordered}
    return Plan(sweep_dir, name, _limited(ordered, states, sweep.limit), states, asked)


def refusal(invalid: dict[str, list[str]], asked: int) -> str:
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
        ranks.setdefault(reuse_key(job.config), len(ranks))
    return sorted(jobs, key=lambda job: ranks[reuse_key(job.config)])


def _limited(jobs: list[Job], states: dict[str, JobState], limit: int | None) -> list[Job]:
    if limit is None:
        return jobs
    started = [job for job in jobs if states[job.identity.slug] not in FINAL][:limit]
    kept = {job.identity.slug for job in started}
    return [job for job in jobs if states[job.identity.slug] in FINAL or job.identity.slug in kept]


def print_plan(plan: Plan, details: bool) -> None:
    """Say what a sweep is going to do; with ``details`` job by job."""
    joined = plan.asked - len({job.identity.hash for job in plan.jobs})
    same = f", {joined} joined with equal ones or left out" if joined else ""
    log.info(
        "Sweep %s: %d jobs%s; %d done, %d to do. Directory: %s",
        plan.name,
        len(plan.jobs),
        same,
        len(plan.done),
        len(plan.to_do),
        plan.sweep_dir,
    )
    if details:
        memory = estimated_memory(plan.jobs)
        print_table(
            f"{plan.name} (dry run)",
            ("job", "state", "memory", "overrides"),
            [
                (
                    job.identity.slug,
                    str(plan.states[job.identity.slug]),
                    memory[job.identity.slug],
                    " ".join(text for text in job.overrides if not text.startswith("paths.")),
                )
                for job in plan.jobs
            ],
        )


def estimated_memory(jobs: Sequence[Job]) -> dict[str, str]:
    """Return the planner's peak of each job by slug, as text; a dash where its size is not known.

    Jobs that differ in what costs no memory (seeds, rates) are planned once.
    """
    from sizewise.job.bases import GB, memory_key, peak_bytes

    known: dict[str, str] = {}
    found: dict[str, str] = {}
    for job in jobs:
        cfg = to_run_config(job.config, check_types=False)
        key = memory_key(cfg)
        if key not in known:
            try:
                known[key] = f"{peak_bytes(cfg) / GB:.2f} GB"
            except SizewiseError:
                known[key] = "–"
        found[job.identity.slug] = known[key]
    return found


def print_table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print a table, as wide as it needs where it does not go to a terminal."""
    from rich.table import Table

    from sizewise.report.page.terminal import wide_console

    table = Table(title=literal(title), title_justify="left")
    for column in columns:
        table.add_column(literal(column), overflow="fold")
    for row in rows:
        table.add_row(*map(literal, row))
    # On a terminal the table fits it; in a file or a pipe nothing may be cut.
    wide_console(400).print(table)
