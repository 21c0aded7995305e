"""The local launcher: one worker process per GPU, or a few that share the processor."""

from __future__ import annotations

from collections.abc import Sequence

from sizewise.errors import SweepError
from sizewise.sweep.backend import LaunchOptions
from sizewise.sweep.gpus import available_cores, visible_gpus
from sizewise.sweep.jobs import Job
from sizewise.sweep.pool import Pool
from sizewise.sweep.progress import Progress
from sizewise.sweep.slot import Slot


class LocalBackend:
    """A pool of worker processes on this machine (see ``LocalLauncherConf`` for the options)."""

    def __init__(
        self,
        n_jobs: int | None = None,
        gpus: Sequence[str] | None = None,
        threads: int | None = None,
        progress: bool | None = None,
    ) -> None:
        self._n_jobs, self._threads, self._progress = n_jobs, threads, progress
        self._gpus = visible_gpus() if gpus is None else [str(name) for name in gpus]
        self._given_gpus = gpus is not None
        self._devices = 1
        self._slots: list[Slot] = []

    @property
    def slots(self) -> int:
        """One per GPU (or group of GPUs), else ``n_jobs``, else one."""
        if self._gpus:
            groups = len(self._gpus) // self._devices
            return min(groups, self._n_jobs) if self._n_jobs else groups
        return self._n_jobs or 1

    def check(self, jobs: Sequence[Job]) -> None:
        """Raise if a job asks for more GPUs than there are."""
        trainers = [job.config.get("trainer") or {} for job in jobs]
        if trainers and all(trainer.get("accelerator") == "cpu" for trainer in trainers):
            self._gpus = []
        self._devices = max((trainer.get("devices") or 1 for trainer in trainers), default=1)
        if self._gpus and self._devices > len(self._gpus):
            raise SweepError(
                f"trainer.devices={self._devices}, but only {len(self._gpus)} GPUs are visible "
                f"({', '.join(self._gpus)}). Lower trainer.devices or show more GPUs."
            )

    def run(self, jobs: Sequence[Job], options: LaunchOptions) -> None:
        """Run the jobs; see ``Backend``."""
        if not jobs:
            return
        self.check(jobs)
        if not self._slots:
            count = min(self.slots, len(jobs))
            threads = self._threads or max(1, available_cores() // count)
            self._slots = [Slot(number, self._share(number), threads) for number in range(count)]
        with Progress(len(jobs), self._progress) as progress:
            Pool(self._slots, jobs, options, progress).run()

    def close(self) -> None:
        """End the workers; until then they keep what they have loaded."""
        for slot in self._slots:
            slot.close()
        self._slots = []

    def _share(self, number: int) -> list[str] | None:
        if not self._gpus:
            return [] if self._given_gpus else None
        return self._gpus[number * self._devices : (number + 1) * self._devices]
