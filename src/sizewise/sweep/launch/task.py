"""What runs where SLURM or Ray has put it: one job in that process, or a pack in one of its own."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sizewise.errors import SweepError
from sizewise.job.execute import Interrupts, execute
from sizewise.job.submit import Job, submitted_job
from sizewise.record.logs import output_to_log
from sizewise.record.state import JobState, job_state, read_failure, record_failure
from sizewise.sweep.launch.backend import LaunchOptions
from sizewise.sweep.launch.local_launcher import Pool
from sizewise.sweep.launch.packing import ALONE, Packing
from sizewise.sweep.launch.progress import Progress
from sizewise.sweep.launch.slot import Slot


@dataclass(frozen=True)
class PackPlan:
    """How a pack is run: packed how, ended by its first failure or not.

    ``patience``: seconds that its jobs have for saving their states when they are told to stop.
    """

    packing: Packing = ALONE
    fail_fast: bool = False
    patience: float = 60.0


class PackTask:
    """Runs a pack of submitted jobs in a worker that has all devices of this process.

    It is a pool of one: where the worker dies, each of its jobs goes on alone.

    Args:
        run_dirs: their directories; one whose record is damaged fails, and not the others.
        plan: how they are packed, and whether the first failure ends all.
    """

    def __init__(self, run_dirs: Sequence[Path], plan: PackPlan) -> None:
        self._jobs = [job for run_dir in run_dirs if (job := _readable(run_dir)) is not None]
        self._plan = plan
        self._slot = Slot(0, gpus=None, threads=None)

    def run(self) -> None:
        """Run every job to its end; KeyboardInterrupt after SIGTERM, when all have saved theirs."""
        if not self._jobs:
            return
        options = LaunchOptions(self._jobs[0].run_dir.parent, fail_fast=self._plan.fail_fast)
        try:
            with Progress(len(self._jobs), live=False) as progress:
                Pool([self._slot], self._jobs, options, progress, self._plan.packing).run()
        finally:
            self._slot.close()

    def stop(self) -> None:
        """Let every job save its state, and wait for that as long as there is time."""
        process = self._slot.process
        if process is not None:
            self._slot.stop()
            with suppress(subprocess.TimeoutExpired):
                process.wait(self._plan.patience)


def _readable(run_dir: Path) -> Job | None:
    try:
        return submitted_job(run_dir)
    except SweepError as error:
        record_failure(run_dir, str(error))
        return None


class SlurmTask:
    """Runs the job of one directory, or a pack; begun again in the same place after a requeue.

    A failed job raises, so that SLURM too knows it as FAILED.
    """

    def __init__(self, run_dirs: Sequence[str], plan: PackPlan | None = None) -> None:
        self.run_dirs, self.plan = list(run_dirs), plan or PackPlan()
        self._interrupts: Interrupts | None = None
        self._pack: PackTask | None = None

    def __call__(self) -> float | None:
        run_dirs = [Path(name) for name in self.run_dirs]
        if len(run_dirs) == 1:
            return self._alone(run_dirs[0])
        # What has failed did so in an earlier start: it was forgotten when this was submitted.
        open_ = [run_dir for run_dir in run_dirs if job_state(run_dir) != JobState.FAILED]
        self._pack = PackTask(open_, self.plan)
        self._pack.run()
        failed = [run_dir for run_dir in run_dirs if job_state(run_dir) == JobState.FAILED]
        if failed:
            said = ((run_dir, read_failure(run_dir)) for run_dir in failed)
            raise SweepError("\n".join(f"{d}: {f.first_line if f else 'failed'}" for d, f in said))
        return None

    def _alone(self, run_dir: Path) -> float | None:
        if int(os.environ.get("SLURM_NTASKS", "1")) > 1:
            os.environ.setdefault("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0"))
        # submitit handles the signals; this only remembers that one was the reason to stop.
        self._interrupts = Interrupts(enabled=False)
        with output_to_log(run_dir):
            result = execute(run_dir, self._interrupts)
        if result.state == JobState.FAILED:
            raise SweepError(f"{run_dir}: {result.message}")
        return result.objective

    def checkpoint(self) -> Any:
        """Submit the same jobs again; submitit calls this before a time limit or a preemption."""
        from submitit.helpers import DelayedSubmission

        if self._interrupts is not None:
            self._interrupts.received = signal.SIGUSR2
        if self._pack is not None:
            self._pack.stop()
        return DelayedSubmission(SlurmTask(self.run_dirs, self.plan))


def run_in_ray(run_dirs: Sequence[str], plan: PackPlan) -> None:
    """Run the job of a directory in this Ray worker, or a pack in a process of its own."""
    if len(run_dirs) > 1:
        PackTask([Path(name) for name in run_dirs], plan).run()
        return
    run_dir = Path(run_dirs[0])
    with output_to_log(run_dir):
        execute(run_dir, Interrupts(enabled=False))
