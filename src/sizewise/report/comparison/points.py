"""Candidates as points of pictures: quality with its interval, size and costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sizewise.report.comparison.arms import Candidate, TestSet
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
    """One candidate; costs are None where not measured, training costs 0 of what is not fitted."""

    candidate: Candidate
    base: Candidate | None
    score: float
    low: float | None
    high: float | None
    costs: dict[str, float | None]

    @property
    def label(self) -> str:
        """Name of the configuration."""
        return self.candidate.label

    @property
    def tuned(self) -> bool:
        """Whether it was specialised."""
        return self.candidate.tuned


@dataclass(frozen=True)
class Front:
    """Candidates that none beats in quality and this cost.

    ``share`` is their hypervolume as a share of the box between the best and the worst values,
    ``largest`` the largest cost of all candidates.
    """

    cost: str
    candidates: tuple[Candidate, ...]
    share: float
    largest: float

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the candidates."""
        return tuple(candidate.label for candidate in self.candidates)

    def holds(self, point: Point) -> bool:
        """Whether the point's candidate is on the front."""
        return any(candidate is point.candidate for candidate in self.candidates)


def make_points(test: TestSet, seed: int = 0) -> list[Point]:
    """Return a point per candidate with a finite score, in the order of the candidates."""
    intervals = _intervals(test, seed)
    found = []
    for candidate in test.candidates:
        score = candidate.score(test.primary)
        if np.isfinite(score):
            base = test.zero_shot_of(candidate) if candidate.tuned else None
            low, high = intervals.get(id(candidate), (None, None))
            costs = {name: cost_of(candidate, name) for name in COSTS}
            found.append(Point(candidate, base, score, low, high, costs))
    return found


def cost_of(candidate: Candidate, name: str) -> float | None:
    """One cost of a candidate, in the unit of ``COSTS``."""
    if name == "params":
        return float(candidate.params)
    if name == "memory_bytes":
        return float(candidate.model.memory_bytes)
    if name == "latency_seconds":
        return candidate.latency
    if name == "train_seconds":
        return candidate.train_seconds if candidate.fitted else 0.0
    return candidate.energy_joules


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
        members = tuple(p.candidate for (p, _), on in zip(known, on_front, strict=True) if on)
        share = hypervolume(values, directions).share
        found.append(Front(cost, members, share, float(values[:, 1].max())))
    return found
