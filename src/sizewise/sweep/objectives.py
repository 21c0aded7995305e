"""The figures of an outcome that a search may look at: never a quality on the test split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sizewise.errors import SweepError
from sizewise.outcome import Outcome

DIRECTIONS = ("minimize", "maximize")
# What a model costs does not depend on which split it was measured on.
KINDS = ("validation", "model", "cost", "efficiency")


def parse_objectives(objectives: Sequence[str], pruner: str) -> dict[str, str]:
    """Return name → direction of every objective, given as ``minimize:NAME``.

    Raises:
        SweepError: a name or direction is unknown, or pruning makes no sense.
    """
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
