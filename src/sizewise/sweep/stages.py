"""A plan carried out in stages: what can run now, then what the choice among candidates adds."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sizewise.job.submit import Job, submit
from sizewise.record.brackets import tuning_sentence
from sizewise.record.state import JobState, job_state
from sizewise.record.stops import go_on, is_past, standing_stop, stop_at
from sizewise.sweep.brackets import tuning_record
from sizewise.sweep.launch.backend import More
from sizewise.sweep.plan import FINAL, Plan, current
from sizewise.words import plural

log = logging.getLogger(__name__)
# So often a job is started in one call if somebody else keeps stopping it where it was to go on.
STARTS = 3
MIXED = (
    "some candidates were stopped by an earlier version, which took the loss of the last weights, "
    "and others now, with that of the mean of the latest weights, which is mostly lower: those "
    "stopped earlier are at a disadvantage. A new directory (sweep.dir) compares all alike."
)
WAITING = (
    "%s: %s waiting at a rung for %d that failed. The same command tries again; to go on without "
    "what failed, take it out of the grid and give sweep.dir=%s."
)
Started = Counter[tuple[str, float | None]]


@dataclass(frozen=True)
class Means:
    """How jobs are launched and written down; whether the launcher has left some running.

    ``launch`` runs jobs to their ends, or to where they stop for now. It may ask its second
    argument for those that have become due meanwhile, and run them as well. Where there are none,
    ``idle`` is called: a worker has nothing to do while others are at work.
    """

    launch: Callable[[list[Job], More], None]
    record: Callable[[Plan], None]
    left_running: Callable[[Plan], bool]
    idle: Callable[[], None] = lambda: None


def run_stages(plan: Plan, means: Means, limit: int | None, fail_fast: bool) -> Plan:
    """Run a plan to its end, and return it as it stands then.

    A job that failed is not begun again, and what depends on it is left out; the same command
    tries it again. After ``limit`` starts, and where the launcher does not wait, the rest is left
    to the next call as well.
    """
    course = _Course(plan, means, limit)
    while course.startable:
        if due := course.begin():
            means.launch(due, course.more)
        if not plan.brackets:
            break
        course.look()
        course.say_what_was_chosen()
        if means.left_running(course.plan) or (fail_fast and course.failed):
            break
    for look in course.plan.looks:
        if look.mixed:
            log.warning("%s: %s", look.bracket.name, MIXED)
        waiting, failed = look.waiting_for_failed
        if waiting and failed:
            who = plural(waiting, "candidate")
            log.warning(WAITING, look.bracket.name, who, failed, plan.sweep_dir)
    return course.plan if limit is None else _without_the_rest(course.plan, course.started)


class _Course:
    """A plan while it is carried out: as it was last looked at, and what was begun."""

    def __init__(self, plan: Plan, means: Means, limit: int | None) -> None:
        self.plan, self.started = plan, Started()
        self._means, self._limit = means, limit
        self._begun: list[Job] = []
        self._undecided = plan.undecided
        means.record(plan)

    @property
    def startable(self) -> list[Job]:
        """The jobs that are due and were not begun, or not often, within the limit."""
        fresh = [
            job
            for job in self.plan.to_do
            if not self.started[_key(job)]
            or (self.started[_key(job)] < STARTS and job_state(job.run_dir) in FINAL)
        ]
        return fresh if self._limit is None else fresh[: max(0, self._limit - self.started.total())]

    def begin(self, free: Callable[[Job], bool] = lambda job: True) -> list[Job]:
        """Write what each startable job that is ``free`` is to do now; return those to be run."""
        jobs = [job for job in self.startable if free(job)]
        due = _submit(jobs)
        self.started.update(_key(job) for job in jobs)
        self._begun += jobs
        return due

    def look(self) -> None:
        """Look at what has become of the jobs, and what that makes due."""
        self.plan = current(self.plan)
        self._means.record(self.plan)

    def say_what_was_chosen(self) -> None:
        """Say it once, when the last choice is made; not amid what a launcher draws."""
        if self._undecided and not self.plan.undecided:
            log.info("%s", tuning_sentence(tuning_record(self.plan.looks, self.plan.audit)))
        self._undecided = self.plan.undecided

    def more(self, busy: Collection[Path]) -> list[Job]:
        """The jobs that have become due while the launcher is ``busy`` with some directories.

        One that has come to its rung and is about to end there is left for later, and so is what
        somebody else works on, or has stopped again.
        """
        jobs = []
        if self.plan.undecided or any(not self.started[_key(job)] for job in self.startable):
            self.look()
            jobs = self.begin(
                lambda job: (
                    not self.started[_key(job)]
                    and job.run_dir not in busy
                    and job_state(job.run_dir) != JobState.RUNNING
                )
            )
        if not jobs:
            self._means.idle()
        return jobs

    @property
    def failed(self) -> bool:
        return any(job_state(job.run_dir) == JobState.FAILED for job in self._begun)


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
