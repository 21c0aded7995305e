"""The SLURM launcher: one array of independent jobs, whose results are read from directories."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sizewise.errors import SweepError
from sizewise.files import read_json, write_json
from sizewise.job.submit import Job
from sizewise.record.claims import holder
from sizewise.record.directories import RunDir
from sizewise.record.identity import trains
from sizewise.record.state import (
    ENDED,
    JobState,
    forget_failure,
    is_done,
    job_state,
    record_failure,
)
from sizewise.sweep.launch.backend import LaunchOptions
from sizewise.sweep.launch.packing import Packing, choose_packing
from sizewise.sweep.launch.progress import Progress
from sizewise.sweep.launch.slurm_queue import (
    cancel,
    is_held,
    job_end,
    queue_reasons,
    require_queued_ids,
    require_slurm,
)
from sizewise.sweep.launch.task import PackPlan, SlurmTask

# A job may leave the queue a moment before its files are seen on a shared file system.
GRACE_POLLS = 3
_COMMON = (
    "timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name"
)  # fmt: skip


class SlurmBackend:
    """Submits jobs and waits for their results (see ``SlurmLauncherConf`` for the options)."""

    def __init__(
        self,
        submitit_folder: str | None = None,
        max_num_timeout: int = 3,
        wait: bool = True,
        poll_seconds: float = 5.0,
        **parameters: Any,
    ) -> None:
        self._folder, self._timeouts = submitit_folder, max_num_timeout
        self.waits, self._poll = wait, poll_seconds
        if poll_seconds <= 0:
            raise SweepError(f"hydra.launcher.poll_seconds={poll_seconds}: set more than 0.")
        self._told: set[tuple[str, str]] = set()
        self._parameters = {key: value for key, value in parameters.items() if value is not None}

    @property
    def slots(self) -> int:
        return int(self._parameters.get("array_parallelism", 256))

    def check(self, jobs: Sequence[Job]) -> None:
        require_slurm()
        for job in jobs:
            check_resources(self._parameters, job.config, job.identity.slug)

    def run(self, jobs: Sequence[Job], options: LaunchOptions) -> None:
        """Submit what is not queued yet, and wait for all."""
        self.check(jobs)
        open_jobs = list(jobs)
        with Progress(len(jobs), sweep_dir=options.sweep_dir) as progress:
            for attempt in range(options.retries + 1):
                self._submit(open_jobs, options, progress)
                if not self.waits:
                    progress.say("Submitted. The same command collects the results later.")
                    return
                last = attempt == options.retries
                self.wait_for(open_jobs, options, progress, report_failures=last)
                open_jobs = [job for job in jobs if job_state(job.run_dir) == JobState.FAILED]
                if not open_jobs or options.fail_fast:
                    return

    def close(self) -> None:
        """Nothing is kept."""

    def packing(self, asked: Any, jobs: Sequence[Job]) -> Packing:
        """Return which of the jobs share passes; ``asked``: ``sweep.packing``."""
        given = {key: str(self._parameters.get(key) or "") for key in GPU_KEYS}
        if not given["gres"].startswith("gpu"):  # shard and mps are parts of one
            del given["gres"]
        return choose_packing(asked, jobs, any(given.values()))

    def _submit(self, jobs: list[Job], options: LaunchOptions, progress: Progress) -> None:
        alive = require_queued_ids()
        new = [j for j in jobs if queue_id(j.run_dir) not in alive or _left_a_pack(j.run_dir)]
        if len(new) < len(jobs):
            progress.say(f"{len(jobs) - len(new)} jobs are in SLURM's queue already.")
        if not new:
            return
        for job in new:
            forget_failure(job.run_dir)
        packing = self.packing(options.packing, new)
        packs = packing.packs(new, self.slots)
        executor = self._executor(options.sweep_dir, most=max(map(len, packs)))
        plan = PackPlan(packing, options.fail_fast, self._parameters.get("signal_delay_s", 120) / 2)
        tasks = [SlurmTask([str(job.run_dir.resolve()) for job in pack], plan) for pack in packs]
        submitted = executor.submit_array(tasks) if len(tasks) > 1 else [executor.submit(tasks[0])]
        for pack, handle in zip(packs, submitted, strict=True):
            for job in pack:
                record = {"job_id": handle.job_id, "jobs": len(pack)}
                write_json(RunDir(job.run_dir).queued, record)
                progress.say(f"submit  {job.identity.slug} as {handle.job_id}")

    def _executor(self, sweep_dir: Path, most: int) -> Any:
        """Return what submits tasks of at most so many jobs; each adds its extensions of time."""
        try:
            import submitit
        except ImportError as error:
            raise SweepError(
                "hydra/launcher=slurm needs submitit: pip install 'sizewise[slurm]'."
            ) from error
        folder = self._folder or str(sweep_dir.resolve() / ".submitit" / "%j")
        executor = submitit.AutoExecutor(
            folder=folder, cluster="slurm", slurm_max_num_timeout=self._timeouts * most
        )
        named = {"name": sweep_dir.name, **self._parameters}
        executor.update_parameters(
            **{key if key in _COMMON else f"slurm_{key}": value for key, value in named.items()}
        )
        return executor

    def wait_for(
        self, jobs: list[Job], options: LaunchOptions, progress: Progress, report_failures: bool
    ) -> None:
        open_jobs, missed = list(jobs), dict.fromkeys((job.identity.hash for job in jobs), 0)
        try:
            while open_jobs:
                reasons = queue_reasons()
                alive = None if reasons is None else set(reasons)
                self._say_held(open_jobs, reasons or {}, progress)
                for job in list(open_jobs):
                    if not self.ended(job, alive, missed):
                        continue
                    open_jobs.remove(job)
                    failed = job_state(job.run_dir) == JobState.FAILED
                    if report_failures or not failed:
                        progress.end(None, job)
                    if failed and options.fail_fast:
                        cancel([queue_id(other.run_dir) or "" for other in open_jobs])
                        return
                progress.refresh()
                if open_jobs:
                    time.sleep(self._poll)
        except KeyboardInterrupt:
            ids = " ".join(filter(None, (queue_id(job.run_dir) for job in open_jobs)))
            sys.stderr.write(f"\nThe jobs go on in SLURM. To end them: scancel {ids}\n")
            raise

    def _say_held(self, jobs: list[Job], reasons: dict[str, str], progress: Progress) -> None:
        """Say, once each, for which jobs waiting may be in vain, and who works on others."""
        for job in jobs:
            job_id, slug = queue_id(job.run_dir) or "", job.identity.slug
            reason, owner = reasons.get(job_id, ""), holder(job.run_dir)
            elsewhere = owner is not None and owner.queue_job != job_id
            news = (slug, reason if is_held(reason) else "elsewhere" if elsewhere else "")
            if not news[1] or news in self._told:
                continue
            self._told.add(news)
            if is_held(reason):
                progress.say(
                    f"held    {slug}: SLURM job {job_id} waits for you ({reason}). To let it run: "
                    f"scontrol release {job_id}. To give it up: scancel {job_id}"
                )
            else:
                progress.held(job)

    def ended(self, job: Job, alive: set[str] | None, missed: dict[str, int]) -> bool:
        """Whether a job has a result, or has left the queue without one."""
        if is_done(job.run_dir):
            return True
        job_id, owner = queue_id(job.run_dir), holder(job.run_dir)
        elsewhere = owner is not None and owner.queue_job != job_id  # another sweep's
        if _left_a_pack(job.run_dir):
            return True
        if alive is None or job_id in alive or elsewhere:
            missed[job.identity.hash] = 0
            return False
        if job_state(job.run_dir) in ENDED:
            return True
        missed[job.identity.hash] += 1
        if missed[job.identity.hash] < GRACE_POLLS:
            return False
        state = job_end(job_id or "")
        how = "was cancelled" if state.startswith("CANCELLED") else f"ended as {state}"
        record_failure(job.run_dir, f"SLURM job {job_id} {how} without a result")
        return True


def _left_a_pack(run_dir: Path) -> bool:
    """Whether a job has failed in a pack, the others of which may go on.

    Alone, a job that has failed may still be requeued: SLURM killed what was to ask for that.
    """
    packed = (read_json(RunDir(run_dir).queued) or {}).get("jobs", 1) > 1
    return packed and job_state(run_dir) == JobState.FAILED and holder(run_dir) is None


def queue_id(run_dir: Path) -> str | None:
    """Return the id under which a job was last submitted."""
    return (read_json(RunDir(run_dir).queued) or {}).get("job_id")


GPU_KEYS = ("gpus_per_node", "gpus_per_task", "gres")


def check_resources(slurm: Mapping[str, Any], config: Mapping[str, Any], job: str) -> None:
    """Raise if a job asks for other nodes, tasks or devices than SLURM will give.

    A base that is spread over GPUs to answer (``model.device_map``) needs one task, which sees them
    all; further ones, for the jobs of the sweep that train, end at once.
    """
    trainer = config.get("trainer") or {}
    devices, nodes = trainer.get("devices") or 1, trainer.get("num_nodes") or 1
    pairs = [("nodes", slurm.get("nodes", 1), "trainer.num_nodes", nodes)]
    spreads = (config.get("model") or {}).get("device_map") is not None
    if spreads and slurm.get("gpus_per_task"):
        raise SweepError(
            f"{job}: model.device_map=auto needs all GPUs of the node in one task, and "
            "hydra.launcher.gpus_per_task shows each task its own. Set "
            f"hydra.launcher.gpus_per_node={devices} instead."
        )
    tasks = slurm.get("tasks_per_node", 1)
    if not (spreads and tasks == 1 and not trains(config)):
        pairs.append(("tasks_per_node", tasks, "trainer.devices", devices))
    on_cpu = trainer.get("accelerator") == "cpu"
    if slurm.get("gpus_per_node") and not on_cpu:
        pairs.append(("gpus_per_node", slurm["gpus_per_node"], "trainer.devices", devices))
    for key, given, wanted_key, wanted in pairs:
        if given != wanted:
            raise SweepError(
                f"{job}: hydra.launcher.{key}={given} contradicts {wanted_key}={wanted}. "
                f"Set hydra.launcher.{key}={wanted}, or {wanted_key}={given}."
            )
    wants_gpu = trainer.get("accelerator") in ("gpu", "cuda")
    if wants_gpu and not any(slurm.get(key) for key in GPU_KEYS):
        raise SweepError(
            f"{job}: trainer.accelerator={trainer['accelerator']}, but no GPU is asked of SLURM. "
            f"Set hydra.launcher.gpus_per_node={devices}."
        )
