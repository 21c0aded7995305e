"""The local launcher: one worker process per GPU, or a few that share the processor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sizewise.errors import SweepError
from sizewise.sweep.backend import LaunchOptions
from sizewise.sweep.gpus import available_cores, visible_gpus
from sizewise.sweep.jobs import Job
from sizewise.sweep.pool import Pool
from sizewise.sweep.progress import Progress
from sizewise.sweep.slot import Slot

# Below this many weights one operation is too short to be worth sharing among threads.
SMALL_MODEL = 30_000_000


def jobs_at_once(jobs: Sequence[Job]) -> int:
    """Return how many jobs the processor runs side by side unless ``n_jobs`` says so.

    One per core where every model is small and each job is one process; otherwise one, which then
    has all cores and all memory.
    """
    small = all(0 < rough_size(job.config) <= SMALL_MODEL for job in jobs)
    alone = all((job.config.get("trainer") or {}).get("devices", 1) == 1 for job in jobs)
    return available_cores() if small and alone else 1


def rough_size(config: Mapping[str, Any]) -> int:
    """Estimate a model's weights from its figures or its files; 0 where there are neither."""
    model = config.get("model") or {}
    figures = model.get("architecture")
    if model.get("init") == "tiny_random":
        return 1
    if not figures:
        return _bytes_of_weights(str(model.get("path"))) // 2
    width, layers = figures["hidden_size"], figures["num_layers"]
    block = 4 * width * width + 3 * width * figures["intermediate_size"]
    return int(figures["vocab_size"] * width + layers * block)


def _bytes_of_weights(path: str) -> int:
    return sum(file.stat().st_size for file in Path(path).expanduser().glob("*.safetensors"))


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
        self._on_cpu = 1
        self._slots: list[Slot] = []

    @property
    def slots(self) -> int:
        """One per GPU (or group of GPUs), else ``n_jobs``, else what suits the models."""
        if self._gpus:
            groups = len(self._gpus) // self._devices
            return min(groups, self._n_jobs) if self._n_jobs else groups
        return self._n_jobs or self._on_cpu

    def check(self, jobs: Sequence[Job]) -> None:
        """Raise if a job asks for more GPUs than there are."""
        trainers = [job.config.get("trainer") or {} for job in jobs]
        if trainers and all(trainer.get("accelerator") == "cpu" for trainer in trainers):
            self._gpus = []
        self._on_cpu = jobs_at_once(jobs)
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
        # Workers of an earlier call are kept; a search may begin with fewer jobs than come later.
        count = min(self.slots, len(jobs))
        threads = self._threads or max(1, available_cores() // count)
        for number in range(len(self._slots), count):
            self._slots.append(Slot(number, self._share(number), threads))
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
