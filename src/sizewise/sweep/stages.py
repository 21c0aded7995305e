"""A plan carried out in stages: what can run now, then what the choice among candidates adds."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sizewise.job.submit import Job, submit
from sizewise.record.brackets import tuning_sentence
from sizewise.record.state import JobState, job_state
from sizewise.record.stops import go_on, is_past, standing_stop, stop_at
from sizewise.sweep.brackets import tuning_record
from sizewise.sweep.plan import FINAL, Plan, current

log = logging.getLogger(__name__)
# So often a job is started in one call if somebody else keeps stopping it where it was to go on.
STARTS = 3
MIXED = (
    "some candidates were stopped by an earlier version, which took the loss of the last weights, "
    "and others now, with that of the mean of the latest weights, which is mostly lower: those "
    "stopped earlier are at a disadvantage. A new directory (sweep.dir) compares all alike."
)
Started = Counter[tuple[str, float | None]]


@dataclass(frozen=True)
class Means:
    """How a stage is launched and written down; whether the launcher has left jobs running."""

    launch: Callable[[list[Job]], None]
    record: Callable[[Plan], None]
    left_running: Callable[[Plan], bool]


def run_stages(plan: Plan, means: Means, limit: int | None, fail_fast: bool) -> Plan:
    """Run a plan to its end, and return it as it stands then.

    A job that failed is not begun again, and what depends on it is left out; the same command
    tries it again. After ``limit`` starts, and where the launcher does not wait, the rest is left
    to the next call as well.
    """
    started: Started = Counter()
    means.record(plan)
    while jobs := _startable(plan.to_do, started, limit):
        started.update(_key(job) for job in jobs)
        if due := _submit(jobs):
            means.launch(due)
        if not plan.brackets:
            break
        undecided, plan = plan.undecided, current(plan)  # the former as of before the launch
        means.record(plan)
        if undecided and not plan.undecided:
            log.info("%s", tuning_sentence(tuning_record(plan.looks, plan.audit)))
        failed = any(job_state(job.run_dir) == JobState.FAILED for job in jobs)
        if means.left_running(plan) or (fail_fast and failed):
            break
    for look in plan.looks:
        if look.mixed:
            log.warning("%s: %s", look.bracket.name, MIXED)
    return plan if limit is None else _without_the_rest(plan, started)


def _startable(jobs: Sequence[Job], started: Started, limit: int | None) -> list[Job]:
    fresh = [
        job
        for job in jobs
        if not started[_key(job)]
        or (started[_key(job)] < STARTS and job_state(job.run_dir) in FINAL)
    ]
    return fresh if limit is None else fresh[: max(0, limit - started.total())]


def _key(job: Job) -> tuple[str, float | None]:
    return job.identity.hash, job.stop_at


def _submit(jobs: Sequence[Job]) -> list[Job]:
    """Write what each job is to do now, and return those that have it still before them.

    One that stands still at an earlier place may go on. Others may have worked since the plan was
    made: what they have brought as far, or further, is left as it is.
    """
    due = [job for job in jobs if not _is_there(job)]
    for job in due:
        submit(job)
        stop = standing_stop(job.run_dir)
        if stop is not None and stop.share != job.stop_at and not _is_there(job):
            go_on(job.run_dir)
    return due


def _is_there(job: Job) -> bool:
    """Whether a fit has come to where it is to stop, or was stopped further on."""
    run_dir, share = job.run_dir, job.stop_at
    return share is not None and (stop_at(run_dir, share) is not None or is_past(run_dir, share))


def _without_the_rest(plan: Plan, started: Started) -> Plan:
    begun = {identity for identity, _ in started}
    jobs = [
        job
        for job in plan.jobs
        if job.identity.hash in begun or plan.states[job.identity.slug] in FINAL
    ]
    return replace(plan, jobs=jobs)
