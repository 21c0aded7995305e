"""Hydra plugin: options and named sweeps of the working directory, after those of the package."""

from __future__ import annotations

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class WorkingDirectory(SearchPathPlugin):
    """Finds ``conf/GROUP/NAME.yaml`` and ``sweeps/sweep/NAME.yaml`` where the command is typed."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folders that are there."""
        for name in ("conf", "sweeps"):
            if (folder := Path.cwd() / name).is_dir():
                search_path.append("working-directory", f"file://{folder}")
