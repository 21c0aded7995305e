"""The space of a search, and the figures that it may look at: never test quality."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from sizewise.errors import SweepError
from sizewise.record.outcome import Outcome
from sizewise.record.study import require_optuna

Space = dict[str, Any]


def search_space(overrides: Sequence[Override]) -> tuple[list[str], Space]:
    """Split overrides into those that are fixed and distributions of those that are searched.

    ``a=1,2`` and ``choice()`` are categories; ``range()`` gives steps; ``interval(a,b)`` numbers
    between, whole ones where both ends are; ``tag(log, interval(…))`` on a logarithmic scale.
    """
    fixed = [str(item.input_line) for item in overrides if not item.is_sweep_override()]
    searched = [item for item in overrides if item.is_sweep_override()]
    if not searched:
        raise SweepError(
            "There is nothing to search over. Give values as choice(), range() or interval(), "
            "e.g. 'optimizer.lr=tag(log,interval(1e-5,1e-3))'."
        )
    return fixed, {item.get_key_element(): _distribution(item) for item in searched}


def corners(space: Space) -> list[list[str]]:
    """Return overrides that between them hold every category and both ends of every range."""
    values = {
        key: list(kind.choices) if hasattr(kind, "choices") else [kind.low, kind.high]
        for key, kind in space.items()
    }
    most = max((len(found) for found in values.values()), default=0)
    return [
        [f"{key}={found[min(number, len(found) - 1)]}" for key, found in values.items()]
        for number in range(most)
    ]


def _distribution(override: Override) -> Any:
    kinds = require_optuna().distributions
    value: Any = override.value()
    log = "log" in getattr(value, "tags", ())
    if isinstance(value, IntervalSweep):
        start: Any = value.start
        end: Any = value.end
        if isinstance(start, int) and isinstance(end, int):
            return kinds.IntDistribution(start, end, log=log)
        return kinds.FloatDistribution(float(start), float(end), log=log)
    if isinstance(value, RangeSweep):
        return _steps(value, kinds)
    return kinds.CategoricalDistribution([str(v) for v in override.sweep_string_iterator()])


def _steps(value: RangeSweep, kinds: Any) -> Any:
    values = list(value.range())
    low, high, step = min(values), max(values), abs(value.step)
    if all(isinstance(number, int) for number in (low, high, step)):
        return kinds.IntDistribution(low, high, step=step)
    return kinds.FloatDistribution(float(low), float(high), step=float(step))


DIRECTIONS = ("minimize", "maximize")
# What a model costs does not depend on which split it was measured on.
KINDS = ("validation", "model", "cost", "efficiency")


def parse_objectives(objectives: Sequence[str], pruner: str) -> dict[str, str]:
    """Return name → direction of every ``minimize:NAME``; SweepError for one that is wrong."""
    if not objectives:
        raise SweepError("hydra.sweeper.objectives is empty. Name at least one figure.")
    parsed: dict[str, str] = {}
    for text in objectives:
        direction, _, name = text.partition(":")
        if direction not in DIRECTIONS or not name:
            raise SweepError(
                f"hydra.sweeper.objectives: {text!r} is not understood. Write "
                "minimize:NAME or maximize:NAME, e.g. [minimize:objective]."
            )
        parsed[name] = direction
        if name != "objective" and name.split("/")[0] not in KINDS:
            raise SweepError(
                f"{name} is not a figure to search by. Use objective, or a name that begins with "
                f"{', '.join(kind + '/' for kind in KINDS)}; test scores are only reported."
            )
    if pruner != "none" and len(objectives) > 1:
        raise SweepError(
            f"hydra.sweeper.pruner={pruner} needs one objective, but there are {len(objectives)}. "
            "A Pareto search runs every trial to its end: set hydra.sweeper.pruner=none."
        )
    return parsed


def objective_values(outcome: Outcome, names: Sequence[str]) -> list[float] | None:
    """Return the figures of an outcome; None if one is missing or not a number."""
    values = [_figure(outcome, name) for name in names]
    if any(value is None or not math.isfinite(value) for value in values):
        return None
    return [float(value) for value in values if value is not None]


def _figure(outcome: Outcome, name: str) -> float | None:
    kind, _, rest = name.partition("/")
    if name == "objective":
        return outcome.objective
    found: Any = None
    if kind == "validation":
        found = outcome.validation.get(rest)
    elif kind == "efficiency":
        evaluation = outcome.best.get(outcome.data.name)
        found = evaluation.scores.get(name) if evaluation is not None else None
    else:
        found = asdict(outcome.model if kind == "model" else outcome.cost).get(rest)
    return float(found) if isinstance(found, int | float) else None
