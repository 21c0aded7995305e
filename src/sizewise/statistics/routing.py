"""Hybrid of a small and a large model: the large one answers where the small one is unsure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sizewise.errors import StatisticsError
from sizewise.statistics.arrays import FloatArray, finite, same_length


@dataclass(frozen=True)
class RoutingCurve:
    """Mean score over the share of traffic that goes to the large model.

    All arrays [P] over `shares` from 0 to 1. `scores`: least confident first; `oracle`: largest
    gain first (knows both scores; a bound, not a method); `random`: examples drawn at random.
    `best_share` and `best_score` were picked on these examples, hence too good on average;
    `held_out_score` picks the share on other folds of the examples and scores it on the left-out
    one. `gain_captured`: area between `scores` and `random` over that between oracle and random
    (1: as good as the oracle, 0: as random; NaN if the oracle gains nothing).
    """

    shares: FloatArray
    scores: FloatArray
    oracle: FloatArray
    random: FloatArray
    best_share: float
    best_score: float
    held_out_score: float
    gain_captured: float


def routing_curve(
    confidence: ArrayLike,
    small_scores: ArrayLike,
    large_scores: ArrayLike,
    *,
    points: int = 101,
    higher_is_better: bool = True,
    folds: int = 5,
    seed: int = 0,
) -> RoutingCurve:
    """Score of routing by the small model's confidence, at `points` shares of traffic.

    All inputs [N], N ≥ 2, of the same examples; confidence may have any scale. Examples with equal
    confidence are routed in random order (their expected score), so the order of the input does
    not matter. Shares between whole numbers of examples are interpolated.
    """
    small, large, sure = _checked(confidence, small_scores, large_scores, points, folds)
    sign = 1.0 if higher_is_better else -1.0
    gains = sign * (large - small)
    base = float(sign * small.mean())
    shares = np.linspace(0.0, 1.0, points)
    routed = base + _cumulative(gains, sure, shares)
    oracle = base + _cumulative(gains, -gains, shares)
    random = base + shares * float(gains.mean())
    best_share, best = _best(base, gains, sure)
    held_out = _held_out(sign * small, gains, sure, folds, seed)
    possible = float(np.trapezoid(oracle - random, shares))
    captured = float(np.trapezoid(routed - random, shares)) / possible if possible > 0 else np.nan
    return RoutingCurve(
        shares=shares,
        scores=sign * routed,
        oracle=sign * oracle,
        random=sign * random,
        best_share=best_share,
        best_score=sign * best,
        held_out_score=sign * held_out,
        gain_captured=captured,
    )


def average_curve(curves: Sequence[RoutingCurve], *, higher_is_better: bool = True) -> RoutingCurve:
    """Mean of the curves of several seeds on the same shares; the best share is the mean's."""
    if len(curves) == 1:
        return curves[0]
    sign = 1.0 if higher_is_better else -1.0
    scores = np.mean([curve.scores for curve in curves], axis=0)
    best = int(np.argmax(sign * scores))
    return RoutingCurve(
        shares=curves[0].shares,
        scores=scores,
        oracle=np.mean([curve.oracle for curve in curves], axis=0),
        random=np.mean([curve.random for curve in curves], axis=0),
        best_share=float(curves[0].shares[best]),
        best_score=float(scores[best]),
        held_out_score=float(np.mean([curve.held_out_score for curve in curves])),
        gain_captured=float(np.mean([curve.gain_captured for curve in curves])),
    )


def _checked(
    confidence: ArrayLike, small: ArrayLike, large: ArrayLike, points: int, folds: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    few, many = finite(small, "small_scores", 1), finite(large, "large_scores", 1)
    sure = finite(confidence, "confidence", 1)
    same_length(few, many, "small_scores and large_scores")
    same_length(few, sure, "small_scores and confidence")
    if points < 2 or folds < 2 or few.size < 2:
        raise StatisticsError(
            f"points={points}, folds={folds} and the {few.size} examples must each be at least 2."
        )
    return few, many, sure


def _steps(gains: FloatArray, order_by: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Summed gain [T + 1] at the counts [T + 1] where all examples up to a tie are routed."""
    order = np.argsort(order_by, kind="stable")
    keys = order_by[order]
    ends = np.append(np.flatnonzero(np.diff(keys)) + 1, keys.size)
    totals = np.concatenate([[0.0], np.cumsum(gains[order])[ends - 1]])
    return np.concatenate([[0.0], ends.astype(np.float64)]), totals


def _cumulative(gains: FloatArray, order_by: FloatArray, shares: FloatArray) -> FloatArray:
    """Mean gain over all examples at each share; linear within ties (random order there)."""
    counts, totals = _steps(gains, order_by)
    return np.asarray(np.interp(shares * gains.size, counts, totals) / gains.size)


def _best(base: float, gains: FloatArray, sure: FloatArray) -> tuple[float, float]:
    """Best reachable threshold: lowest share among equal scores."""
    counts, totals = _steps(gains, sure)
    position = int(np.argmax(totals))
    return float(counts[position] / gains.size), base + float(totals[position] / gains.size)


def _held_out(
    small: FloatArray, gains: FloatArray, sure: FloatArray, folds: int, seed: int
) -> float:
    """Cross-validated score of the best confidence threshold."""
    fold = np.random.default_rng(seed).permutation(gains.size) % folds
    scores = small.copy()
    for number in range(min(folds, gains.size)):
        held, rest = fold == number, fold != number
        counts, totals = _steps(gains[rest], sure[rest])
        n_routed = int(counts[int(np.argmax(totals))])
        if n_routed:
            threshold = np.sort(sure[rest])[n_routed - 1]
            scores[held] += np.where(sure[held] <= threshold, gains[held], 0.0)
    return float(scores.mean())
