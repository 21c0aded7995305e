"""The detailed views of one test set, and what it costs: routing and break-even."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sizewise.config import PricesConfig
from sizewise.report.comparison.arms import Arm, TestSet
from sizewise.report.comparison.curves import (
    Curve,
    LearningCurve,
    learning_curves,
    rank_curves,
    scaling_of,
)
from sizewise.report.comparison.examples import Sample, draw_sample
from sizewise.report.comparison.points import Point
from sizewise.report.comparison.runs import FloatArray
from sizewise.report.comparison.strata import Confusion, Stratum, confusions, strata_of
from sizewise.report.comparison.verdict import Contrast, Verdict, find_contrast
from sizewise.statistics.cost import BreakEven, api_cost_per_answer, break_even, device_cost
from sizewise.statistics.routing import RoutingCurve, average_curve, routing_curve
from sizewise.statistics.scaling import ScalingMatch


@dataclass(frozen=True)
class PaidBack:
    """Break-even of the small tuned model against one way of getting the large one's answers."""

    against: str
    unit: str
    training: float
    small_per_answer: float
    large_per_answer: float
    result: BreakEven


def hybrid_of(test: TestSet, contrast: Contrast, seed: int = 0) -> RoutingCurve | None:
    """Routing by the small model's confidence; None if unknown.

    Each seed's model is routed by its own confidence, and the curves are averaged: nobody deploys
    the mean of several models.
    """
    if contrast.large is None or contrast.large.scores is None or contrast.small.scores is None:
        return None
    confidences = confidences_of(test, contrast.small)
    if confidences is None or len(test.ids) < 10:
        return None
    higher = test.direction == "max"
    # Multiplied by their weights, the plain means of a curve are the weighted ones.
    weights = 1.0 if test.weights is None else test.weights / test.weights.mean()
    large = contrast.large.scores[0] * weights
    curves = [
        routing_curve(sure, scores * weights, large, higher_is_better=higher, seed=seed)
        for sure, scores in zip(confidences, contrast.small.scores, strict=True)
    ]
    return average_curve(curves, higher_is_better=higher)


def confidences_of(test: TestSet, arm: Arm) -> FloatArray | None:
    """Mean log-probability of the generated tokens, [S, N]; None where not computed."""
    found = []
    for member in arm.members:
        if member.answers is None:
            return None
        found.append(member.answers.confidence[member.answers.positions(test.ids)])
    matrix = np.stack(found)
    return matrix if np.isfinite(matrix).all() else None


def paid_back(
    test: TestSet, contrast: Contrast, prices: PricesConfig | None = None
) -> list[PaidBack]:
    """Break-even in device time, and in money where prices are given."""
    small, large = contrast.small, contrast.large
    if large is None or small.train_seconds is None or small.latency is None:
        return []
    training, per_answer = small.train_seconds, small.latency
    found = []
    if large.latency is not None:
        result = break_even(training, per_answer, large.latency)
        found.append(
            PaidBack(large.label, "device seconds", training, per_answer, large.latency, result)
        )
    if prices is None or large.first.answers is None:
        return found
    hourly, per_1000 = prices.device_per_hour, prices.api_per_1000_tokens
    if hourly is None or per_1000 is None:
        return found
    costs = (device_cost(training, hourly), device_cost(per_answer, hourly))
    answers = large.first.answers
    tokens = float(answers.tokens[answers.positions(test.ids)].mean())
    api = api_cost_per_answer(tokens, 0.0, per_1000)
    result = break_even(*costs, api)
    found.append(PaidBack(f"{large.label} over an API", "currency", *costs, api, result))
    return found


@dataclass(frozen=True)
class Views:
    """What is shown beside table and verdict; what the runs do not allow is None or empty."""

    contrast: Contrast | None
    strata: list[Stratum]
    ranks: list[Curve]
    learning: list[LearningCurve]
    scaling: ScalingMatch | None
    hybrid: RoutingCurve | None
    paid_back: list[PaidBack]
    confusion: list[Confusion]
    sample: Sample


def make_views(
    test: TestSet,
    points: Sequence[Point],
    verdict: Verdict,
    prices: PricesConfig | None = None,
    seed: int = 0,
) -> Views:
    """Compute the views that the runs of a test set allow."""
    contrast = find_contrast(test, verdict)
    sample = draw_sample(test, contrast, seed)
    if contrast is None:
        return Views(None, [], [], [], None, None, [], [], sample)
    return Views(
        contrast=contrast,
        strata=strata_of(test, contrast, seed),
        ranks=rank_curves(test, points),
        learning=learning_curves(test, points, contrast, seed),
        scaling=scaling_of(test, contrast, seed),
        hybrid=hybrid_of(test, contrast, seed),
        paid_back=paid_back(test, contrast, prices),
        confusion=confusions(test, [c for c in (contrast.base, contrast.small) if c is not None]),
        sample=sample,
    )
