"""Arms as points of pictures, with their costs, and as curves over rank, training data and size."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sizewise.config import PricesConfig
from sizewise.report.comparison.arms import CLASSICAL, ZERO_SHOT, Arm, TestSet
from sizewise.report.comparison.contrast import Contrast, scale_of
from sizewise.report.comparison.costs import money_per_1000
from sizewise.report.comparison.labels import tell_apart
from sizewise.report.comparison.pairs import rows
from sizewise.report.comparison.selection import CHOSEN, UNCHANGING, one_per_question, rest
from sizewise.statistics.bootstrap import difference_intervals
from sizewise.statistics.comparison import bound_of_equals
from sizewise.statistics.cost import hypervolume, pareto_front
from sizewise.statistics.learning_curve import Overtaking, overtaking_size
from sizewise.statistics.scaling import Form, ScalingMatch, matching_size
from sizewise.statistics.sides import sides_of

RESAMPLES = 4_000
COSTS = {
    "params": "Parameters",
    "memory_bytes": "Memory of the weights (bytes)",
    "latency_seconds": "Seconds per answer (median)",
    "train_seconds": "Training time (seconds)",
    "energy_joules": "Energy (joules)",
    "money_per_1000": "Money per 1,000 answers",
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


def make_points(test: TestSet, seed: int = 0, prices: PricesConfig | None = None) -> list[Point]:
    """Return a point per arm with a finite score, in the order of the arms.

    ``prices`` give what an answer of a local model costs in money, by its seconds.
    """
    intervals = score_intervals(test, test.scored, seed)
    found = []
    for position, arm in enumerate(test.arms):
        score = arm.score(test.primary)
        if np.isfinite(score):
            base = test.zero_shot_of(arm) if arm.tuned else None
            low, high = intervals.get(id(arm), (None, None))
            costs = {name: cost_of(arm, name, prices) for name in COSTS}
            found.append(Point(arm, position, base, score, low, high, costs))
    return found


def best_points(points: Sequence[Point], sign: float, most: int) -> list[Point]:
    """The points that have space for a name: all, or the best of every base, tuned and not."""
    if len(points) <= most:
        return list(points)
    best: dict[tuple[str, bool], Point] = {}
    for point in points:
        key = (point.arm.model.name, point.tuned)
        if key not in best or sign * point.score > sign * best[key].score:
            best[key] = point
    return list(best.values())[:most]


def sizes_apart(points: Sequence[Point], factor: float) -> list[float]:
    """The sizes of the bases, without those that are less than ``factor`` above one before."""
    apart: list[float] = []
    for size in sorted({p.arm.size for p in points if p.costs["params"] is not None}):
        if not apart or size >= factor * apart[-1]:
            apart.append(size)
    return apart


def cost_of(arm: Arm, name: str, prices: PricesConfig | None = None) -> float | None:
    """One cost of an arm, in the unit of ``COSTS``."""
    if name == "params":
        # Words and their weights are no size of a model.
        known = math.isfinite(arm.params) and arm.kind != CLASSICAL
        return float(arm.params) if known else None
    if name == "memory_bytes":
        return float(arm.model.memory_bytes) or None
    if name == "latency_seconds":
        return arm.latency
    if name == "train_seconds":
        return arm.train_seconds if arm.fitted else 0.0
    if name == "money_per_1000":
        return money_per_1000(arm, prices)
    return arm.energy_joules


def score_intervals(
    test: TestSet, arms: Sequence[Arm], seed: int, some: NDArray[np.bool_] | None = None
) -> dict[int, tuple[float, float]]:
    """95 % intervals of the arms' scores by their ``id``, over the examples that are ``True``.

    Where every example has the same score, which no resampling varies, a bound on the share of
    groups that could have another; none of a single group.
    """
    mask = np.ones(len(test.ids), dtype=bool) if some is None else some
    groups = np.array(test.groups)[mask].tolist()
    if not arms or len(set(groups)) < 2:
        return {}
    zeros = np.zeros(len(groups))
    weights = None if test.weights is None else test.weights[mask]
    sides = [sides_of(rows(arm)[..., mask], zeros, groups, weights=weights) for arm in arms]
    found = difference_intervals(sides, n_resamples=RESAMPLES, seed=seed)
    scale = scale_of(test)
    ends: dict[int, tuple[float, float]] = {}
    for arm, side, interval in zip(arms, sides, found, strict=True):
        scores = side.a.scores
        if scale.percent and scores.min() == scores.max():
            interval = bound_of_equals(float(scores.mean()), side.units.count, least=0.0)
        ends[id(arm)] = scale.cut(interval.low, interval.high, 0.0)
    return ends


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


RANK, TRAINED_ON = ("lora.r",), ("dataset.max_train",)


@dataclass(frozen=True)
class Curve:
    """Points that differ in one number only, in rising order of it."""

    name: str
    x: tuple[float, ...]
    points: tuple[Point, ...]


@dataclass(frozen=True)
class LearningCurve:
    """Quality over training examples, and where it overtakes the large zero-shot model."""

    curve: Curve
    large: str | None
    overtaking: Overtaking | None


def rank_curves(test: TestSet, points: Sequence[Point]) -> list[Curve]:
    return _curves(test, points, RANK, lambda c: c.model.lora_r)


def learning_curves(
    test: TestSet, points: Sequence[Point], contrast: Contrast, seed: int = 0
) -> list[LearningCurve]:
    curves = _curves(test, points, TRAINED_ON, lambda c: c.max_train)
    return [LearningCurve(c, *_overtaking(test, c, contrast.large, seed)) for c in curves]


def _curves(test: TestSet, points: Sequence[Point], ignored: tuple[str, ...], x) -> list[Curve]:  # type: ignore[no-untyped-def]
    chosen = {id(c) for c in one_per_question(test)}
    groups: dict[str, list[Point]] = {}
    for point in points:
        if id(point.arm) in chosen and x(point.arm):
            groups.setdefault(_rest(point.arm, ignored), []).append(point)
    # Sizes that were asked for may come to the same where the data end first.
    several = [g for g in groups.values() if len({x(point.arm) for point in g}) > 1]
    found = []
    for name, group in zip(_names(several, ignored), several, strict=True):
        by_x = {float(x(p.arm)): p for p in group}
        order = sorted(by_x)
        found.append(Curve(name, tuple(order), tuple(map(by_x.get, order))))  # type: ignore[arg-type]
    return found


def _names(groups: Sequence[Sequence[Point]], ignored: tuple[str, ...]) -> list[str]:
    """Names of curves, with what tells them apart where bases and sizes do not."""
    names = [_name(group[0], ignored) for group in groups]
    configs = [json.loads(_rest(group[0].arm, ignored)) for group in groups]
    for name in [name for name, number in Counter(names).items() if number > 1]:
        same = [i for i, other in enumerate(names) if other == name]
        for i, more in zip(same, tell_apart([configs[i] for i in same]), strict=True):
            names[i] = f"{name} {more}"
    return names


def _rest(arm: Arm, ignored: tuple[str, ...]) -> str:
    return rest(arm, (*ignored, *CHOSEN, *UNCHANGING))


def _name(point: Point, ignored: tuple[str, ...]) -> str:
    model = point.arm.model
    parts = [model.name]
    if ignored != RANK:
        parts.append(f"r={model.lora_r}")
    elif point.arm.max_train:
        parts.append(f"{point.arm.max_train:,} examples")
    if model.quantization != "none":
        parts.append(model.quantization)
    return " ".join(parts)


def _overtaking(
    test: TestSet, curve: Curve, large: Arm | None, seed: int
) -> tuple[str | None, Overtaking | None]:
    if large is None or len(set(test.groups)) < 2:
        return None, None
    scores = [rows(p.arm) for p in curve.points]
    higher = test.direction == "max"
    found = overtaking_size(
        curve.x, scores, rows(large), test.groups,
        higher_is_better=higher, seed=seed, weights=test.weights,
    )  # fmt: skip
    return large.label, found


def scaling_of(test: TestSet, contrast: Contrast, seed: int = 0) -> ScalingMatch | None:
    """Size at which a zero-shot model would match the tuned one; None below two sizes.

    Only unquantised zero-shot models count, the best of each size. Scores of which less is
    better are turned round and fitted on a line; shares of 1 get the logistic form.
    """
    by_size: dict[int, Arm] = {}
    for arm in test.scored:
        known = arm.model.quantization == "none" and math.isfinite(arm.size)
        if arm.kind == ZERO_SHOT and known:
            size = arm.model.params_base
            held = by_size.get(size)
            better = held is None or test.sign * arm.score() > test.sign * held.score()
            by_size[size] = arm if better or held is None else held
    if len(by_size) < 2 or len(set(test.groups)) < 2:
        return None
    sizes = sorted(by_size)
    scores = [test.sign * rows(by_size[size]) for size in sizes]
    tuned = test.sign * rows(contrast.small)
    everything = np.concatenate([np.ravel(s) for s in (*scores, tuned)])
    logistic = test.sign > 0 and everything.min() >= 0 and everything.max() <= 1
    form: Form = "logistic" if logistic else "log-linear"
    return matching_size(
        sizes, scores, tuned, test.groups, form=form, seed=seed, weights=test.weights
    )
