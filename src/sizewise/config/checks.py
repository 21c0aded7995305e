"""Small value checks for the schema; each raises ConfigError naming the key and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable

from omegaconf import MISSING

from sizewise.errors import ConfigError


def one_of(key: str, value: str, options: Iterable[str]) -> None:
    """Raise unless ``value`` is one of ``options``; a value still missing passes."""
    allowed = tuple(options)
    if value != MISSING and value not in allowed:
        raise ConfigError(f"{key}={value!r} is not known. Choose one of: {', '.join(allowed)}.")


def at_least(key: str, value: float | None, minimum: float) -> None:
    """Raise if ``value`` is below ``minimum``; None passes."""
    if value is not None and not value >= minimum:
        raise ConfigError(f"{key}={value} is too small. Give a number of at least {minimum:g}.")


def above(key: str, value: float | None, bound: float) -> None:
    """Raise unless ``value`` is greater than ``bound``; None passes."""
    if value is not None and not value > bound:
        raise ConfigError(f"{key}={value} is too small. Give a number above {bound:g}.")


def within(key: str, value: float | None, low: float, high: float) -> None:
    """Raise unless ``low <= value <= high``; None passes."""
    if value is not None and not low <= value <= high:
        raise ConfigError(f"{key}={value} is out of range. Give a number from {low:g} to {high:g}.")
