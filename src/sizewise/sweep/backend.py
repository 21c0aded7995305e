"""What a launcher promises a sweeper: every job run to its end, wherever that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sizewise.sweep.jobs import Job
from sizewise.sweep.state import JobState, finished, job_state, read_failure


@dataclass(frozen=True)
class LaunchOptions:
    """How to go about the jobs of a sweep. ``retries``: how often a failed job is begun again."""

    sweep_dir: Path
    retries: int = 0
    fail_fast: bool = False


class Backend(Protocol):
    """Runs submitted jobs. How they ended is read from their directories, never from memory."""

    @property
    def slots(self) -> int:
        """How many jobs run at the same time."""
        ...

    def check(self, jobs: Sequence[Job]) -> None:
        """Raise SweepError if the settings cannot run these jobs; nothing has started yet."""
        ...

    def run(self, jobs: Sequence[Job], options: LaunchOptions) -> None:
        """Run the jobs; return when each is done, pruned or has failed for good."""
        ...

    def close(self) -> None:
        """Let go of what was kept between two calls of ``run``."""
        ...


def outcome_line(job: Job) -> str:
    """Say in one line how a job ended."""
    state = job_state(job.run_dir)
    if state == JobState.FAILED:
        failure = read_failure(job.run_dir)
        if failure is not None:
            return f"failed: {failure.reason.splitlines()[0]}\n    log: {failure.log}"
    outcome = finished(job.run_dir) if state == JobState.DONE else None
    figure = "" if outcome is None or outcome.objective is None else f" {outcome.objective:.4g}"
    return f"{state}{figure}"
