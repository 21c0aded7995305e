"""Where the YAML options are."""

from __future__ import annotations

from pathlib import Path

from sizewise.errors import ConfigError


def conf_dir() -> Path:
    """Return the folder of YAML options: the checkout's, else the installed package's copy."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package.parents[1] / "conf", package / "_conf"):
        if (candidate / "train.yaml").is_file():
            return candidate
    raise ConfigError(
        f"No folder of configuration options was found beside the package at {package}. "
        "Reinstall sizewise, or run from a checkout."
    )
