"""The Ray launcher: one task per job or pack, each in its own process, on whatever nodes Ray has.

Run directories have to lie on a file system that all nodes share.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sizewise.errors import SweepError
from sizewise.job.submit import Job
from sizewise.record.claims import holder
from sizewise.record.state import ENDED, JobState, job_state, record_failure
from sizewise.sweep.launch.backend import LaunchOptions
from sizewise.sweep.launch.packing import Packing, choose_packing
from sizewise.sweep.launch.progress import Progress
from sizewise.sweep.launch.task import PackPlan, run_in_ray

DYING_SECONDS = 5.0
POLL_SECONDS = 1.0


class RayBackend:
    """Runs jobs as Ray tasks (see ``RayLauncherConf`` for the options)."""

    def __init__(
        self,
        address: str | None = None,
        num_cpus: float = 1,
        num_gpus: float = 0,
        runtime_env: Mapping[str, Any] | None = None,
        init: Mapping[str, Any] | None = None,
    ) -> None:
        self._address, self._init = address, dict(init or {})
        self._resources = {"num_cpus": num_cpus, "num_gpus": num_gpus}
        self._runtime_env = dict(runtime_env or {})
        self._ray: Any = None

    @property
    def slots(self) -> int:
        total = self._started().cluster_resources()
        wanted = {"CPU": self._resources["num_cpus"], "GPU": self._resources["num_gpus"]}
        room = [total.get(name, 0) / share for name, share in wanted.items() if share]
        return max(1, int(min(room, default=1)))

    def check(self, jobs: Sequence[Job]) -> None:
        try:
            import ray  # noqa: F401
        except ImportError as error:
            raise SweepError(
                "hydra/launcher=ray needs Ray: pip install 'sizewise[ray]'."
            ) from error

    def run(self, jobs: Sequence[Job], options: LaunchOptions) -> None:
        if not jobs:
            return
        self.check(jobs)
        ray = self._started()
        # max_calls=1: a process of its own for each task; Ray itself never tries one again.
        task = ray.remote(max_calls=1, max_retries=0, **self._resources)(run_in_ray)
        with Progress(len(jobs), sweep_dir=options.sweep_dir) as progress:
            packing = self.packing(options.packing, jobs)
            packs = packing.packs(jobs, self.slots)
            _Tasks(ray, task, packing, options, progress).run(packs)

    def packing(self, asked: Any, jobs: Sequence[Job]) -> Packing:
        """Return which of the jobs share passes; ``asked``: ``sweep.packing``.

        Not where several tasks share a GPU: whether a pack fits is planned for the whole of it.
        """
        return choose_packing(asked, jobs, self._resources["num_gpus"] >= 1)

    def close(self) -> None:
        """Disconnect, and end a cluster that was begun here."""
        if self._ray is not None:
            self._ray.shutdown()
            self._ray = None

    def _started(self) -> Any:
        if self._ray is None:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            import ray

            settings = {"include_dashboard": False, **self._init} if not self._address else {}
            ray.init(
                address=self._address,
                runtime_env=self._runtime_env or None,
                ignore_reinit_error=True,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **settings,
            )
            self._ray = ray
        return self._ray


class _Tasks:
    """The jobs of one sweep as tasks: those under way, and those that other processes hold."""

    def __init__(
        self, ray: Any, task: Any, packing: Packing, options: LaunchOptions, progress: Progress
    ) -> None:
        self._ray, self._task, self._packing = ray, task, packing
        self._options, self._progress = options, progress
        self._under_way: dict[Any, list[Job]] = {}
        self._elsewhere: list[Job] = []
        self._tries: dict[str, int] = {}

    def run(self, packs: Sequence[Sequence[Job]]) -> None:
        """Run the jobs until every one has ended, or one has failed and nothing else is to run."""
        for pack in packs:
            self._start(pack)
        go_on = True
        while go_on and (self._under_way or self._elsewhere):
            go_on = all([self._ended(job) for job in self._returned()])
            self._progress.refresh()

    def _start(self, pack: Sequence[Job]) -> None:
        free = [job for job in pack if holder(job.run_dir) is None]
        for job in pack:
            if job not in free:
                self._wait_for(job)
        for job in free:
            self._tries[job.identity.hash] = self._tries.get(job.identity.hash, 0) + 1
            self._progress.begin(None, job)
        if free:
            run_dirs = [str(job.run_dir.resolve()) for job in free]
            plan = PackPlan(self._packing, self._options.fail_fast)
            self._under_way[self._task.remote(run_dirs, plan)] = free

    def _wait_for(self, job: Job) -> None:
        self._elsewhere.append(job)
        self._progress.held(job)

    def _returned(self) -> list[Job]:
        """Wait for a second at most; return the jobs that nobody works on any more."""
        ended: list[Any] = []
        if self._under_way:
            ended, _ = self._ray.wait(list(self._under_way), timeout=POLL_SECONDS)
        else:
            time.sleep(POLL_SECONDS)
        packs = [self._under_way.pop(reference) for reference in ended]
        for reference, pack in zip(ended, packs, strict=True):
            self._settle(reference, pack)
        free = [j for j in self._elsewhere if job_state(j.run_dir) != JobState.RUNNING]
        self._elsewhere = [job for job in self._elsewhere if job not in free]
        for job in (job for pack in packs for job in pack):
            if job_state(job.run_dir) == JobState.RUNNING:
                self._wait_for(job)
            else:
                free.append(job)
        return free

    def _ended(self, job: Job) -> bool:
        """Begin a job again where it has to be; return whether the sweep goes on."""
        state = job_state(job.run_dir)
        failed = state == JobState.FAILED
        # Interrupted: another process had it, and is gone.
        tries = self._tries.get(job.identity.hash)  # None: it was never begun here
        again = failed and tries is not None and tries <= self._options.retries
        if again or state not in ENDED:
            self._start([job])
            return True
        self._progress.end(None, job)
        if not (failed and self._options.fail_fast):
            return True
        for other in self._under_way:
            self._ray.cancel(other, force=True)
        return False

    def _settle(self, reference: Any, pack: Sequence[Job]) -> None:
        try:
            self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            for job in pack:
                _wait_for_its_end(job.run_dir)
            left = [job for job in pack if job_state(job.run_dir) not in ENDED]
            for job in left:
                if len(pack) > 1:  # it goes on alone, which shows who was to blame
                    self._tries[job.identity.hash] -= 1
                else:
                    record_failure(job.run_dir, f"Ray: {str(error).splitlines()[0]}")


def _wait_for_its_end(run_dir: Path) -> None:
    """Ray says that a worker died a moment before its process is gone."""
    end = time.monotonic() + DYING_SECONDS
    while holder(run_dir) is not None and time.monotonic() < end:
        time.sleep(0.05)
