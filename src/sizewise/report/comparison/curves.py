"""Quality over the rank, over the number of training examples, and over the size of the model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sizewise.report.comparison.arms import ZERO_SHOT, Arm, TestSet
from sizewise.report.comparison.labels import tell_apart
from sizewise.report.comparison.pairs import CHOSEN, UNCHANGING, representatives, rest, rows
from sizewise.report.comparison.points import Point
from sizewise.report.comparison.verdict import Contrast
from sizewise.statistics.learning_curve import Overtaking, overtaking_size
from sizewise.statistics.scaling import Form, ScalingMatch, matching_size

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
    """Curves over the rank of the adapter, all else equal."""
    return _curves(test, points, RANK, lambda c: c.model.lora_r)


def learning_curves(
    test: TestSet, points: Sequence[Point], contrast: Contrast, seed: int = 0
) -> list[LearningCurve]:
    """Curves over the number of training examples."""
    curves = _curves(test, points, TRAINED_ON, lambda c: c.max_train)
    return [LearningCurve(c, *_overtaking(test, c, contrast.large, seed)) for c in curves]


def _curves(test: TestSet, points: Sequence[Point], ignored: tuple[str, ...], x) -> list[Curve]:  # type: ignore[no-untyped-def]
    chosen = {id(c) for c in representatives(test)}
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
        if arm.kind == ZERO_SHOT and arm.model.quantization == "none":
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
