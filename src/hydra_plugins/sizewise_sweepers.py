"""Hydra plugins: the sweeper of grids (default) and the search. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext
from omegaconf import DictConfig

from sizewise.composition.jobs import HydraParts
from sizewise.sweep.options import register_options

register_options()


class GridSweeper(Sweeper):
    """Runs every job of a grid or of a named sweep."""

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
        from hydra.core.plugins import Plugins

        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.hydra = HydraParts(config, hydra_context, launcher)

    def sweep(self, arguments: list[str]) -> Any:
        from sizewise.sweep.grid import run_sweep

        return run_sweep(self.hydra, arguments, **self.settings)


class SearchSweeper(GridSweeper):
    """Searches the values of a grid with Optuna."""

    def sweep(self, arguments: list[str]) -> Any:
        from sizewise.sweep.search.search import run_search

        return run_search(self.hydra, arguments, **self.settings)
