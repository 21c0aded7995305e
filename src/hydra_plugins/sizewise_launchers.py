"""Hydra plugins: the launchers ``local``, ``slurm`` and ``ray``. Nothing heavy is imported here."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig

from sizewise.composition.jobs import HydraParts
from sizewise.sweep.options import register_options

if TYPE_CHECKING:
    from sizewise.sweep.launch.backend import Backend

register_options()


class JobLauncher(Launcher):
    """Runs jobs from their directories; subclasses say where."""

    hydra: HydraParts  # from ``setup``, which Hydra calls first

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(
        self,
        *,
        hydra_context: HydraContext,
        task_function: Callable[[Any], Any],
        config: DictConfig,
    ) -> None:
        """The task function is not used, jobs are read from disk."""
        self.hydra = HydraParts(config, hydra_context)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[Any]:
        from sizewise.sweep.launch.backend import launch_for_hydra

        return launch_for_hydra(self.hydra, self.backend(), job_overrides)

    @abstractmethod
    def backend(self) -> Backend: ...


class LocalLauncher(JobLauncher):
    """Worker processes on this machine."""

    def backend(self) -> Backend:
        from sizewise.sweep.launch.local_launcher import LocalBackend

        return LocalBackend(**self.settings)


class SlurmLauncher(JobLauncher):
    """A SLURM job array."""

    def backend(self) -> Backend:
        from sizewise.sweep.launch.slurm_launcher import SlurmBackend

        return SlurmBackend(**self.settings)


class RayLauncher(JobLauncher):
    """Ray tasks."""

    def backend(self) -> Backend:
        from sizewise.sweep.launch.ray_launcher import RayBackend

        return RayBackend(**self.settings)
