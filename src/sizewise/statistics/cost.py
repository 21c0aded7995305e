"""Pareto fronts of many objectives, and after how many answers training is paid back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sizewise.errors import StatisticsError
from sizewise.statistics.arrays import BoolArray, FloatArray, as_directions

# Share of an objective's range by which the default reference point lies beyond the worst value.
REFERENCE_MARGIN = 0.1


@dataclass(frozen=True)
class ParetoFront:
    """Which of M points no other point beats.

    `on_front` [M]; `complete` [M]: False for points with a NaN, which are neither on the front
    nor dominate anything (an energy that was not measured is not an energy of 0).
    """

    on_front: BoolArray
    complete: BoolArray


@dataclass(frozen=True)
class Hypervolume:
    """Volume between front and reference point, in the product of the objectives' units.

    `share` is it divided by the box from the ideal point (best value of each objective) to the
    reference point, so it lies in 0..1 and has no unit.
    """

    volume: float
    share: float
    reference: tuple[float, ...]


def pareto_front(values: ArrayLike, directions: Sequence[str]) -> ParetoFront:
    """Find the points of `values` [M, K] that no other point dominates.

    `directions`: "max" or "min" for each objective. A point dominates another if it is at least
    as good in all objectives and better in one; equal points are all kept.
    """
    costs_MK = _costs(values, directions)
    complete = np.asarray(~np.isnan(costs_MK).any(axis=1))
    on_front = complete.copy()
    known = costs_MK[complete]
    for position in np.flatnonzero(complete):
        point = costs_MK[position]
        dominated = np.all(known <= point, axis=1) & np.any(known < point, axis=1)
        on_front[position] = not dominated.any()
    return ParetoFront(on_front, complete)


def hypervolume(
    values: ArrayLike, directions: Sequence[str], reference: Sequence[float] | None = None
) -> Hypervolume:
    """Exact hypervolume of `values` [M, K] (Zitzler & Thiele 1998), by slicing objectives.

    `reference` is the point from which the volume is measured; by default the worst value of each
    objective plus a tenth of its range (Ishibuchi et al. 2018, Evolutionary Computation 26, on
    why not the worst value itself), or plus 1 if all are equal. To compare fronts, pass the same
    one. Points not better than it in every objective add nothing; points with NaN are left out.
    Time grows with M**(K − 1). Raises StatisticsError if no point is complete.
    """
    costs_MK = _costs(values, directions)
    costs_MK = costs_MK[~np.isnan(costs_MK).any(axis=1)]
    if costs_MK.shape[0] == 0:
        raise StatisticsError("No point has all objectives; leave out the unmeasured objective.")
    if not np.isfinite(costs_MK).all():
        raise StatisticsError("An objective is infinite; a volume needs finite values.")
    signs = as_directions(directions, costs_MK.shape[1])
    corner = _default_reference(costs_MK) if reference is None else _given(reference, signs)
    inside = costs_MK[np.all(costs_MK < corner, axis=1)]
    volume = _volume(inside, corner)
    box = float(np.prod(np.maximum(corner - costs_MK.min(axis=0), 0.0)))
    share = volume / box if box > 0.0 else 0.0
    return Hypervolume(volume, min(share, 1.0), tuple(float(r) for r in -signs * corner))


def _costs(values: ArrayLike, directions: Sequence[str]) -> FloatArray:
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise StatisticsError(f"values has shape {matrix.shape}; pass points × objectives [M, K].")
    return -as_directions(directions, matrix.shape[1]) * matrix


def _given(reference: Sequence[float], signs: FloatArray) -> FloatArray:
    corner = np.asarray(reference, dtype=np.float64)
    if corner.shape != signs.shape or not np.isfinite(corner).all():
        raise StatisticsError(f"reference {reference} must hold {signs.size} finite numbers.")
    return np.asarray(-signs * corner)


def _default_reference(costs_MK: FloatArray) -> FloatArray:
    worst, spread = costs_MK.max(axis=0), np.ptp(costs_MK, axis=0)
    return np.asarray(worst + np.where(spread > 0.0, REFERENCE_MARGIN * spread, 1.0))


def _volume(costs_MK: FloatArray, corner_K: FloatArray) -> float:
    """Volume dominated by `costs_MK` (all better than `corner_K`): slabs along the last axis."""
    if costs_MK.shape[0] == 0:
        return 0.0
    if corner_K.size == 1:
        return float(corner_K[0] - costs_MK.min())
    ordered = costs_MK[np.argsort(costs_MK[:, -1], kind="stable")]
    if corner_K.size == 2:
        return _area(ordered, corner_K)
    ends = np.append(ordered[1:, -1], corner_K[-1])
    heights = ends - ordered[:, -1]
    return sum(
        float(height) * _volume(ordered[: last + 1, :-1], corner_K[:-1])
        for last, height in enumerate(heights)
        if height > 0.0
    )


def _area(ordered_M2: FloatArray, corner: FloatArray) -> float:
    """Area dominated by points in ascending order of the second cost."""
    reach = np.minimum.accumulate(ordered_M2[:, 0])
    heights = np.append(ordered_M2[1:, 1], corner[1]) - ordered_M2[:, 1]
    return float(np.sum((corner[0] - reach) * heights))


@dataclass(frozen=True)
class BreakEven:
    """Answers until the costs are equal, rounded up; infinite if that never happens.

    `saving_per_answer` is in the unit of the costs (money, joules, seconds); `reason` says in
    words why the number is what it is.
    """

    answers: float
    saving_per_answer: float
    reason: str


def break_even(
    training_cost: float, small_cost_per_answer: float, large_cost_per_answer: float
) -> BreakEven:
    """Break-even of training a small model instead of using a large one, all in one unit.

    training_cost + n · small = n · large, solved for n. Costs must be finite and not negative.
    """
    costs = {
        "training_cost": training_cost,
        "small_cost_per_answer": small_cost_per_answer,
        "large_cost_per_answer": large_cost_per_answer,
    }
    for name, cost in costs.items():
        _check(cost, name)
    saving = large_cost_per_answer - small_cost_per_answer
    if saving < 0.0:
        why = "never: an answer of the small model costs more than one of the large model"
        return BreakEven(math.inf, saving, why)
    if training_cost == 0.0:
        return BreakEven(0.0, saving, "at once: training cost nothing")
    if saving == 0.0:
        return BreakEven(math.inf, saving, "never: an answer costs the same with both models")
    answers = training_cost / saving
    if not math.isfinite(answers):
        why = "never: the saving per answer is too small to count"
        return BreakEven(math.inf, saving, why)
    needed = math.ceil(answers)
    return BreakEven(float(needed), saving, f"after {needed} answers the training is paid back")


def api_cost_per_answer(
    prompt_tokens: float,
    answer_tokens: float,
    prompt_price_per_1000: float,
    answer_price_per_1000: float | None = None,
) -> float:
    """Price of one answer of a metered interface, in the currency of the prices.

    Tokens are means per answer; without `answer_price_per_1000` both kinds cost the same.
    """
    per_answer = prompt_price_per_1000 if answer_price_per_1000 is None else answer_price_per_1000
    _check(prompt_tokens, "prompt_tokens")
    _check(answer_tokens, "answer_tokens")
    _check(prompt_price_per_1000, "prompt_price_per_1000")
    _check(per_answer, "answer_price_per_1000")
    return (prompt_tokens * prompt_price_per_1000 + answer_tokens * per_answer) / 1000.0


def device_cost(seconds: float, price_per_hour: float) -> float:
    """Cost of `seconds` on a device that costs `price_per_hour`, in the currency of the price."""
    _check(seconds, "seconds")
    _check(price_per_hour, "price_per_hour")
    return seconds * price_per_hour / 3600.0


def _check(value: float, name: str) -> None:
    if not (math.isfinite(value) and value >= 0.0):
        raise StatisticsError(f"{name}={value} must be a finite number that is not negative.")
