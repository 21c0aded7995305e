"""Hydra plugins: the sweeper of grids (default) and the search. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext
from omegaconf import DictConfig

from sizewise.sweep.options import register_options

register_options()


class GridSweeper(Sweeper):
    """Runs every job of a grid or of a named sweep."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.hydra_context: HydraContext | None = None
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None

    def setup(
        self,
        *,
        hydra_context: HydraContext,
        task_function: Callable[[Any], Any],
        config: DictConfig,
    ) -> None:
        """Keep what Hydra hands over and make the launcher."""
        from hydra.core.plugins import Plugins

        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Plan and run the sweep that the command line names."""
        from sizewise.sweep.sweeper import run_sweep

        return run_sweep(self, arguments, **self.settings)


class SearchSweeper(GridSweeper):
    """Searches the values of a grid with Optuna."""

    def sweep(self, arguments: list[str]) -> Any:
        """Run, or continue, the search that the command line names."""
        from sizewise.sweep.search import run_search

        return run_search(self, arguments, **self.settings)
