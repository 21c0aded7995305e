"""Plain values to typed objects, for configurations whose types were checked when composed.

``to_run_config`` checks types as well, at a hundred milliseconds for a whole configuration; a
sweep of hundreds of jobs cannot pay that twice for each.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any

from sizewise.config import RunConfig
from sizewise.errors import ConfigError


def run_config(config: Mapping[str, Any]) -> RunConfig:
    """Build the typed configuration of a job, running the checks of every group.

    Raises:
        ConfigError: a key is unknown or a value out of range; the message names it.
    """
    built = _build(RunConfig, config, "")
    assert isinstance(built, RunConfig)
    return built


def _build(kind: type[Any], values: Mapping[str, Any], where: str) -> Any:
    hints = _hints(typing.cast(Any, kind))
    unknown = [key for key in values if key not in hints]
    if unknown:
        raise ConfigError(
            f"{where}{unknown[0]} is not known. Keys there: {', '.join(sorted(hints))}."
        )
    made = {key: _convert(hints[key], value, f"{where}{key}.") for key, value in values.items()}
    return kind(**made)


def _convert(hint: Any, value: Any, where: str) -> Any:
    if isinstance(value, Mapping):
        kind = next((item for item in _members(hint) if dataclasses.is_dataclass(item)), None)
        if kind is not None:
            return _build(typing.cast(type[Any], kind), value, where)
        arguments = typing.get_args(hint)
        if len(arguments) == 2 and dataclasses.is_dataclass(arguments[1]):
            item = typing.cast(type[Any], arguments[1])
            return {key: _build(item, node, f"{where}{key}.") for key, node in value.items()}
    return value


def _members(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)
