"""What Hydra hands to a sweeper or a launcher before it runs."""

from __future__ import annotations

from dataclasses import dataclass

from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig


@dataclass(frozen=True)
class HydraParts:
    """The composed configuration, the loader of further ones, and for a sweeper its launcher."""

    config: DictConfig
    context: HydraContext
    launcher: Launcher | None = None
