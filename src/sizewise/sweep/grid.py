"""From a command line and the arms of a named sweep to a list of jobs' overrides."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

from hydra.core.override_parser.types import Override

from sizewise.errors import ConfigError

Parse = Callable[[list[str]], list[Override]]


def expand(
    command: Sequence[str], arms: Mapping[str, Sequence[str]], parse: Parse
) -> list[tuple[str, ...]]:
    """Return the overrides of every job.

    Without arms the command line is the one grid. With arms every arm is a grid of its own, and
    the command line has the last word in each: a key that it sets replaces the arm's.

    Args:
        command: overrides of the command line, with sweeps in Hydra's grammar.
        arms: name of an arm → its overrides.
        parse: parses overrides in Hydra's grammar.
    """
    own = own_overrides(command, parse)
    if not arms:
        return list(_product(own))
    given = {item.get_key_element() for item in own}
    jobs: list[tuple[str, ...]] = []
    for name, overrides in arms.items():
        try:
            arm = parse([str(text) for text in overrides])
        except ConfigError as error:
            raise ConfigError(f"sweep.arms.{name}: {error}") from error
        kept = [item for item in arm if item.get_key_element() not in given]
        jobs += _product([*kept, *own])
    return jobs


def own_overrides(command: Sequence[str], parse: Parse) -> list[Override]:
    """Return the parsed overrides of a command line that are the jobs' and not the sweep's."""
    return [item for item in parse(list(command)) if not _about_the_sweep(item)]


def _about_the_sweep(override: Override) -> bool:
    key = str(override.key_or_group)
    return key == "sweep" or key.startswith("sweep.")


def _product(overrides: Iterable[Override]) -> Iterable[tuple[str, ...]]:
    choices: dict[str, list[str]] = {}
    for item in overrides:
        key = item.get_key_element()
        if item.is_sweep_override():
            if not item.is_discrete_sweep():
                raise ConfigError(
                    f"{item.input_line} is a range without steps, which a grid cannot list. "
                    "Use choice() or range(), or search it: hydra/sweeper=search."
                )
            values = [str(value) for value in item.sweep_string_iterator()]
            if not values:
                raise ConfigError(f"{item.input_line} names no value to sweep over.")
            choices[key] = [f"{key}={value}" for value in values]
        else:
            choices[key] = [str(item.input_line)]
    return itertools.product(*choices.values())
