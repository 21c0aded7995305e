"""What only a sweep can do is refused where a command, or a call, is one job."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sizewise.errors import ConfigError

# Asked for by a command, these make many jobs of it; an experiment may bring them for its sweep.
_MANY = ("tuning.lr_factors", "halving.rungs")
_PYTHON = "sizewise.sweep(…) runs many jobs."


def check_alone(
    config: Mapping[Any, Any], overrides: Sequence[str], command: str | None = None
) -> None:
    """Refuse options of a sweep beside one job, which would run as if they were not there.

    Args:
        config: of the job.
        overrides: what was asked for.
        command: ``train`` or ``evaluate``; None: it is a call from Python.

    Raises:
        ConfigError: the message says what to type.
    """
    sweep = config.get("sweep") or {}
    many = "Add -m, or sweep=NAME, to run many." if command else _PYTHON
    if sweep.get("dry_run"):
        message = f"sweep.dry_run=true shows the plan of a sweep, and this is one job. {many}"
        if command == "train":
            own = [text for text in overrides if not _key(text).startswith(("sweep", "hydra"))]
            message += f" What one job takes: sizewise plan {shlex.join([*own, '--time'])}"
        raise ConfigError(message)
    typed = {_key(text) for text in overrides}
    for name in _MANY:
        group, _, last = name.partition(".")
        if (sweep.get(group) or {}).get(last) and _named(f"sweep.{name}", typed):
            raise ConfigError(f"sweep.{name} is for a sweep, and this is one job. {many}")


def _key(override: str) -> str:
    return override.lstrip("+").partition("=")[0]


def _named(key: str, typed: Iterable[str]) -> bool:
    """Whether a key, or the group that it is in, was given."""
    return any(key == name or ("." in name and key.startswith(f"{name}.")) for name in typed)
