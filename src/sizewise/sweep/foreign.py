"""sizewise's launchers under other sweepers than its own (``hydra/sweeper=basic`` and the like)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf

from sizewise.errors import SweepError
from sizewise.sweep.backend import Backend, LaunchOptions
from sizewise.sweep.execute import stored_result
from sizewise.sweep.hydra_parts import HydraParts
from sizewise.sweep.identity import plain_config
from sizewise.sweep.jobs import DEFAULT_FUNCTION, Job, make_sweep_job, submit
from sizewise.sweep.state import read_failure


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
