"""Small value checks for the schema; each raises ConfigError naming the key and what is allowed."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from omegaconf import MISSING

from sizewise.errors import ConfigError


def one_of(key: str, value: str, options: Iterable[str]) -> None:
    """Raise unless ``value`` is one of ``options``; a value still missing passes."""
    allowed = tuple(options)
    if value != MISSING and value not in allowed:
        raise ConfigError(f"{key}={value!r} is not known. Choose one of: {', '.join(allowed)}.")


def at_least(key: str, value: float | None, minimum: float) -> None:
    """Raise if ``value`` is below ``minimum``, no finite number, or beyond 31 bits; None passes."""
    if value is not None and value < math.inf:
        _countable(key, value)
    if value is not None and not minimum <= value < math.inf:
        raise ConfigError(f"{key}={value} {_off(value)}. Give a number of at least {minimum:g}.")


MOST = 2**31 - 1


def _countable(key: str, value: float) -> None:
    if value > MOST:
        raise ConfigError(f"{key}={value} is too large. Give at most {MOST}.")


def above(key: str, value: float | None, bound: float) -> None:
    """Raise unless ``value`` is a finite number greater than ``bound``; None passes."""
    if value is not None and not bound < value < math.inf:
        raise ConfigError(f"{key}={value} {_off(value)}. Give a number above {bound:g}.")


def _off(value: float) -> str:
    return "is too small" if math.isfinite(value) else "is no finite number"


def within(key: str, value: float | None, low: float, high: float) -> None:
    """Raise unless ``low <= value <= high``; None passes."""
    if value is not None and not low <= value <= high:
        raise ConfigError(f"{key}={value} is out of range. Give a number from {low:g} to {high:g}.")


def one_component(key: str, name: str | None) -> None:
    """Raise unless ``name`` names a folder inside of another one; None passes."""
    if name and (name in (".", "..") or re.search(r"[/\\\0]", name)):
        raise ConfigError(f"{key}={name!r} is a path. Give a name without slashes.")


def is_regex(key: str, value: str | None) -> None:
    """Raise unless ``value`` is a regular expression; None passes."""
    try:
        re.compile(value or "")
    except re.error as error:
        raise ConfigError(f"{key}={value!r} is no regular expression: {error}.") from error


MOST_SEED = 2**63 - 1


def is_seed(key: str, value: int | None) -> None:
    """Raise unless torch takes ``value`` as a seed; None passes."""
    if value is not None and value < 0:
        at_least(key, value, 0)
    if value is not None and value > MOST_SEED:
        raise ConfigError(
            f"{key}={value} is too large for a seed. Give at most {MOST_SEED} (19 digits)."
        )


def limit(key: str, value: int) -> None:
    """Raise unless ``value`` counts something, or is -1, which lifts a limit."""
    _countable(key, value)
    if value < 1 and value != -1:
        raise ConfigError(
            f"{key}={value} trains nothing. Give at least 1, or -1 for no such limit; "
            "lora=none scores the untrained base."
        )
