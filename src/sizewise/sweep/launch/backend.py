"""What a launcher promises a sweeper, and sizewise's launchers under other sweepers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf

from sizewise.composition.jobs import HydraParts
from sizewise.errors import SweepError
from sizewise.job.execute import stored_result
from sizewise.job.submit import DEFAULT_FUNCTION, Job, make_sweep_job, submit
from sizewise.record.identity import plain_config
from sizewise.record.state import JobState, finished, job_state, read_failure
from sizewise.record.stops import standing_stop

# Given the directories that a launcher is at work on: the jobs that have become due since.
More = Callable[[Collection[Path]], list[Job]]


@dataclass(frozen=True)
class LaunchOptions:
    """How to go about the jobs of a sweep.

    ``retries``: how often a failed job is begun again; ``packing``: as ``sweep.packing``;
    ``as_given``: begin jobs in their order. Asking for ``more`` while jobs run keeps workers from
    waiting for one another; a launcher may leave that to the next call of ``run``.
    """

    sweep_dir: Path
    retries: int = 0
    fail_fast: bool = False
    packing: Any = "off"
    as_given: bool = False
    more: More | None = None


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
            return f"failed: {failure.first_line}\n    log: {failure.log}"
    stop = standing_stop(job.run_dir) if state == JobState.PRUNED else None
    if stop is not None:
        return str(stop)
    outcome = finished(job.run_dir) if state == JobState.DONE else None
    return ", ".join(filter(None, (str(state), outcome.objective_text if outcome else "")))


def launch_for_hydra(
    hydra: HydraParts, backend: Backend, job_overrides: Sequence[Sequence[str]]
) -> list[JobReturn]:
    """Run jobs given as overrides and return what Hydra's own launchers return."""
    config, loader = hydra.config, hydra.context.config_loader
    sweep_dir = Path(str(config.hydra.sweep.dir))
    composed = [loader.load_sweep_config(config, list(each)) for each in job_overrides]
    jobs = [
        _job(cfg, tuple(overrides), sweep_dir)
        for cfg, overrides in zip(composed, job_overrides, strict=True)
    ]
    for job in jobs:
        submit(job)
    unique = {job.identity.hash: job for job in jobs}
    with closing(backend):
        backend.run(list(unique.values()), LaunchOptions(sweep_dir))
    return [_returned(job, cfg) for job, cfg in zip(jobs, composed, strict=True)]


def _job(cfg: DictConfig, overrides: tuple[str, ...], sweep_dir: Path) -> Job:
    function = OmegaConf.select(cfg, "hydra.sweeper.job") or DEFAULT_FUNCTION
    return make_sweep_job(plain_config(cfg), sweep_dir, overrides, function)


def _returned(job: Job, cfg: DictConfig) -> JobReturn:
    result = JobReturn(overrides=list(job.overrides), cfg=cfg, working_dir=str(job.run_dir))
    stored = stored_result(job.run_dir)
    if stored is not None:
        result.return_value, result.status = stored.objective, JobStatus.COMPLETED
        return result
    failure = read_failure(job.run_dir)
    reason = failure.reason if failure else "not finished"
    result.return_value, result.status = SweepError(f"{job.run_dir}: {reason}"), JobStatus.FAILED
    return result
