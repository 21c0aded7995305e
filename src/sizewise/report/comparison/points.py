"""Arms as points of pictures: quality with its interval, size and costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sizewise.report.comparison.arms import Arm, TestSet
from sizewise.report.comparison.pairs import rows
from sizewise.statistics.bootstrap import difference_intervals
from sizewise.statistics.cost import hypervolume, pareto_front
from sizewise.statistics.sides import sides_of

RESAMPLES = 4_000
COSTS = {
    "params": "Parameters",
    "memory_bytes": "Memory of the weights (bytes)",
    "latency_seconds": "Seconds per answer (median)",
    "train_seconds": "Training time (seconds)",
    "energy_joules": "Energy (joules)",
}


@dataclass(frozen=True)
class Point:
    """One arm; costs are None where not measured, training costs 0 of what is not fitted.

    ``position`` is the arm's place in its test set.
    """

    arm: Arm
    position: int
    base: Arm | None
    score: float
    low: float | None
    high: float | None
    costs: dict[str, float | None]

    @property
    def label(self) -> str:
        return self.arm.label

    @property
    def tuned(self) -> bool:
        return self.arm.tuned


@dataclass(frozen=True)
class Front:
    """Arms that none beats in quality and this cost.

    ``share`` is their hypervolume as a share of the box between the best and the worst values,
    ``largest`` the largest cost of all arms.
    """

    cost: str
    arms: tuple[Arm, ...]
    share: float
    largest: float

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(arm.label for arm in self.arms)

    def holds(self, point: Point) -> bool:
        return any(arm is point.arm for arm in self.arms)


def make_points(test: TestSet, seed: int = 0) -> list[Point]:
    """Return a point per arm with a finite score, in the order of the arms."""
    intervals = _intervals(test, seed)
    found = []
    for position, arm in enumerate(test.arms):
        score = arm.score(test.primary)
        if np.isfinite(score):
            base = test.zero_shot_of(arm) if arm.tuned else None
            low, high = intervals.get(id(arm), (None, None))
            costs = {name: cost_of(arm, name) for name in COSTS}
            found.append(Point(arm, position, base, score, low, high, costs))
    return found


def best_points(points: Sequence[Point], sign: float, most: int) -> list[Point]:
    """The best point of every base, tuned and not: those that have space for a name."""
    best: dict[tuple[str, bool], Point] = {}
    for point in points:
        key = (point.arm.model.name, point.tuned)
        if key not in best or sign * point.score > sign * best[key].score:
            best[key] = point
    return list(best.values())[:most]


def cost_of(arm: Arm, name: str) -> float | None:
    """One cost of an arm, in the unit of ``COSTS``."""
    if name == "params":
        return float(arm.params)
    if name == "memory_bytes":
        return float(arm.model.memory_bytes)
    if name == "latency_seconds":
        return arm.latency
    if name == "train_seconds":
        return arm.train_seconds if arm.fitted else 0.0
    return arm.energy_joules


def _intervals(test: TestSet, seed: int) -> dict[int, tuple[float, float]]:
    scored = test.scored
    if not scored or len(set(test.groups)) < 2:
        return {}
    zeros = np.zeros(len(test.ids))
    sides = [sides_of(rows(c), zeros, test.groups, weights=test.weights) for c in scored]
    found = difference_intervals(sides, n_resamples=RESAMPLES, seed=seed)
    return {id(c): (i.low, i.high) for c, i in zip(scored, found, strict=True)}


def fronts(test: TestSet, points: Sequence[Point]) -> list[Front]:
    """The Pareto front of quality against every cost that at least two points have."""
    found = []
    for cost in COSTS:
        known = [(p, value) for p in points if (value := p.costs[cost]) is not None]
        if len(known) < 2 or len({value for _, value in known}) < 2:
            continue
        values = np.array([[p.score, value] for p, value in known])
        directions = (test.direction, "min")
        on_front = pareto_front(values, directions).on_front
        members = tuple(p.arm for (p, _), on in zip(known, on_front, strict=True) if on)
        share = hypervolume(values, directions).share
        found.append(Front(cost, members, share, float(values[:, 1].max())))
    return found
