"""The detailed views of ``results.json``: fronts, curves, routing, scaling, strata, confusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sizewise.report.comparison import SetComparison
from sizewise.report.curves import Curve, LearningCurve
from sizewise.report.points import Point
from sizewise.report.strata import Level, Stratum
from sizewise.statistics.routing import RoutingCurve
from sizewise.statistics.scaling import ScalingMatch


def views_record(compared: SetComparison) -> dict[str, Any]:
    """Everything of a test set that the page draws, in the units of the score and of the costs.

    What the runs do not allow is None or empty. Models are named by the labels of
    ``configurations``.
    """
    views = compared.views
    focus = views.focus
    return {
        "points": [_point(point) for point in compared.points],
        "pareto_fronts": [
            {"cost": f.cost, "configurations": f.labels, "hypervolume_share": f.share}
            for f in compared.fronts
        ],
        "views_are_about": None
        if focus is None
        else {
            "tuned": focus.small.label,
            "base": focus.base.label if focus.base else None,
            "large": focus.large.label if focus.large else None,
        },
        "hybrid": _hybrid(views.hybrid),
        "rank_curves": [_curve(curve) for curve in views.ranks],
        "learning_curves": [_learning(entry) for entry in views.learning],
        "scaling": _scaling(views.scaling, compared.test.sign),
        "strata": [_stratum(stratum) for stratum in views.strata],
        "confusion": [asdict(confusion) for confusion in views.confusion],
    }


def _point(point: Point) -> dict[str, Any]:
    interval = [point.low, point.high]
    return {
        "configuration": point.label,
        "score": point.score,
        "interval_95": interval,
        "costs": point.costs,
    }


def _hybrid(curve: RoutingCurve | None) -> dict[str, Any] | None:
    """The share of prompts sent to the large model against the score."""
    if curve is None:
        return None
    return {
        "shares": curve.shares,
        "scores": curve.scores,
        "oracle": curve.oracle,
        "random": curve.random,
        "best": {
            "share": curve.best_share,
            "score": curve.best_score,
            "score_held_out": curve.held_out_score,
        },
        "gain_captured": curve.gain_captured,
    }


def _curve(curve: Curve) -> dict[str, Any]:
    points: Sequence[dict[str, Any]] = [
        {"x": x, **{k: v for k, v in _point(point).items() if k != "costs"}}
        for x, point in zip(curve.x, curve.points, strict=True)
    ]
    return {"name": curve.name, "points": points}


def _learning(entry: LearningCurve) -> dict[str, Any]:
    found = entry.overtaking
    record = None
    if found is not None:
        record = {
            "status": found.status,
            "score_to_reach": found.level_mean,
            "examples_needed": found.examples_needed,
            "interval_95": [found.interval.low, found.interval.high],
            "share_of_resamples_that_reach": found.share_reached,
        }
    return {**_curve(entry.curve), "against": entry.large, "overtaking": record}


def _scaling(match: ScalingMatch | None, sign: float) -> dict[str, Any] | None:
    """Fitted is sign × score, so that more is better."""
    if match is None:
        return None
    return {
        "status": match.status,
        "parameters": match.parameters,
        "interval_95": [match.interval.low, match.interval.high],
        "share_of_resamples_within": match.share_within,
        "tuned_score": sign * match.tuned_mean,
        "fit": None if match.fit is None else {**asdict(match.fit), "sign": sign},
        "exact_fit": match.exact_fit,
    }


def _stratum(stratum: Stratum) -> dict[str, Any]:
    return {
        "name": stratum.name,
        "against": stratum.against,
        "levels": [_level(level) for level in stratum.levels],
    }


def _level(level: Level) -> dict[str, Any]:
    return {
        "value": level.value,
        "examples": level.examples,
        "scores": level.means,
        "gain": level.gain,
        "interval_95": [level.low, level.high],
    }
