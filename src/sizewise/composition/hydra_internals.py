"""What of Hydra has no public name: its loader with one cache, and what it hands to plugins."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig


class _CopyingRepository:
    """Parsed files, handed out as copies: merging writes into what it is given."""

    def __init__(self, repository: Any) -> None:
        self._repository = repository

    def load_config(self, config_path: str) -> Any:
        return deepcopy(self._repository.load_config(config_path))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._repository, name)


class SharedLoader(ConfigLoaderImpl):
    """Loads configurations like ``loader``, reading every file once."""

    def __init__(self, loader: ConfigLoaderImpl, name: str, hydra_overrides: list[str]) -> None:
        self.config_search_path = loader.config_search_path
        self.repository = loader.repository
        self._shared: Any = None
        self._parse_overrides_and_create_caching_repo(name, hydra_overrides)

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], Any]:
        if self._shared is None:
            parsed, repository = super()._parse_overrides_and_create_caching_repo(
                config_name, overrides
            )
            self._shared = _CopyingRepository(repository)
            return parsed, self._shared
        return OverridesParser.create().parse_overrides(overrides=overrides), self._shared

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Compose a configuration."""
        return super().load_configuration(
            config_name, overrides, run_mode, from_shell, validate_sweep_overrides
        )

    def is_group(self, override: Override) -> bool:
        """Whether an override chooses an option (and does not set a value)."""
        return override.package is not None or bool(
            self._shared.group_exists(override.key_or_group)
        )

    def separable(self, override: Override) -> bool:
        """Whether an override's options fill nothing but the node named like their group."""
        group, value = str(override.key_or_group), override.value()
        if override.package is not None or override.is_delete() or "/" in group:
            return False
        if override.is_add() or override.is_force_add() or value is None:
            return False
        options = value if isinstance(value, list) else [value]
        return all(self._plain_option(group, str(option)) for option in options)

    def _plain_option(self, group: str, option: str) -> bool:
        loaded = self._shared.load_config(f"{group}/{option}")
        if loaded is None:
            return False
        own = (item for item in loaded.defaults_list or () if not item.is_self())
        package = loaded.header.get("package")
        return not any(own) and package in (None, group, "_group_")


@dataclass(frozen=True)
class HydraParts:
    """The composed configuration, the loader of further ones, and for a sweeper its launcher."""

    config: DictConfig
    context: HydraContext
    launcher: Launcher | None = None
