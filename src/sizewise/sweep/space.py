"""The space of a search, from overrides in Hydra's grammar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from sizewise.errors import SweepError
from sizewise.sweep.study import require_optuna

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
