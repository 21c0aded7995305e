"""``results.json``: the whole comparison for machines, with its detailed views."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from sizewise.config import PricesConfig
from sizewise.report.comparison.compare import Comparison, SetComparison
from sizewise.report.comparison.decision import Decision, Relation
from sizewise.report.comparison.pair import Pair
from sizewise.report.comparison.points import Curve, LearningCurve, Point
from sizewise.report.comparison.readings import reading_of
from sizewise.report.comparison.strata import Stratum
from sizewise.report.comparison.verdict import Verdict
from sizewise.report.page.prose import cards_of, plain_answer
from sizewise.report.page.setup import setup_of
from sizewise.statistics.routing import RoutingCurve
from sizewise.statistics.scaling import ScalingMatch

RESULTS_VERSION = 4


def results_record(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison as plain values; scores are in their own units, gains signed."""
    record = {
        "version": RESULTS_VERSION,
        "runs": len(comparison.runs),
        "run_ids": [run.outcome.run_id for run in comparison.runs],
        "by": list(comparison.by),
        "problems": [{"where": p.where, "reason": p.reason} for p in comparison.problems],
        "tuning": [asdict(record) for record in comparison.tuning],
        "test_sets": [_set(compared) for compared in comparison.sets],
    }
    found: dict[str, Any] = clean(record)
    return found


def results_text(comparison: Comparison) -> str:
    """``results_record`` as strict JSON."""
    return json.dumps(results_record(comparison), indent=1, ensure_ascii=False, allow_nan=False)


def _set(compared: SetComparison) -> dict[str, Any]:
    test, verdict = compared.test, compared.verdict
    return {
        "dataset": test.dataset,
        "fingerprint": test.fingerprint,
        "metric": test.primary,
        "direction": test.direction,
        "examples_compared": len(test.ids),
        "score_as_said": test.said,
        "reading": reading_of(test) or None,
        "verdict": _verdict(verdict),
        "answer": plain_answer(compared),
        "cards": [asdict(card) for card in cards_of(compared)],
        "warnings": compared.warnings,
        "configurations": compared.everything.to_dict("records"),
        "pairs": _pairs(compared),
        "left_out": compared.left_out,
        "decision": None if compared.decision is None else _decision(compared.decision),
        "margin": compared.margin,
        "prices": asdict(compared.prices or PricesConfig()),
        "paid_back": [asdict(entry) for entry in compared.paid_back],
        "setup": [asdict(part) for part in setup_of(test)],
        **views_record(compared),
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    """The verdict with what limits it; ``also`` are further statuses that hold."""
    best = verdict.baseline
    return {
        **{name: getattr(verdict, name) for name in ("status", "also", "headline", "sentence")},
        "baseline": best
        and {
            "configuration": best.arm.label,
            "score": best.arm.score(),
            "beats_small": best.beats_small,
            "beats_large": best.beats_large,
            "beaten_by_small": best.beaten,
            "small_against_it": best.small and asdict(best.small),
            "large_against_it": best.large and asdict(best.large),
        },
        "reversals": [
            {"stratum": r.stratum.name, "value": r.level.value, **asdict(r.tested)}
            for r in verdict.reversals
        ],
    }


def _pairs(compared: SetComparison) -> list[dict[str, Any]]:
    decision = compared.decision
    if decision is None:
        return [pair_record(pair) for pair in compared.pairs]
    return [
        {**pair_record(pair), **_relation(relation)}
        for pair, relation in zip(compared.pairs, decision.relations, strict=True)
    ]


def _relation(relation: Relation) -> dict[str, Any]:
    return {
        "at_margin": relation.status,
        "p_not_worse": relation.p_not_worse,
        "p_equivalent": relation.p_equivalent,
    }


def _decision(decision: Decision) -> dict[str, Any]:
    smallest, cheapest = decision.smallest, decision.cheapest
    return {
        "margin": decision.margin,
        "sentences": decision.sentences,
        "smallest": smallest and smallest.arm.label,
        "cheapest": cheapest and cheapest.arm.label,
        "configurations": [
            {
                "configuration": choice.arm.label,
                "kind": choice.arm.kind,
                "score": choice.score,
                "params": choice.params,
                "seconds_per_answer": choice.seconds,
                "probability_of_being_best": choice.share_best,
                "p_not_worse_than_best": choice.p_near,
                "not_worse_than_best": choice.near,
            }
            for choice in decision.choices
        ],
    }


def pair_record(pair: Pair) -> dict[str, Any]:
    """One pair: ``interval`` is at ``interval_level``, corrected like ``p_corrected``; the two of
    95 % are of this pair alone, the second conditional on the seeds.
    """
    result = pair.result
    return {
        "question": pair.question,
        "a": pair.a.label,
        "b": pair.b.label,
        "mean_a": result.mean_a,
        "mean_b": result.mean_b,
        "gain": pair.gain,
        "primary": pair.primary,
        "interval": [pair.low, pair.high],
        "interval_level": pair.level,
        "interval_95": pair.uncorrected,
        "interval_95_given_seeds": pair.given_seeds,
        "test": result.test,
        "p_value": result.p_value,
        "p_corrected": pair.p_corrected,
        "p_is_upper_bound": pair.at_floor,
        "found": pair.found,
        "wins": pair.wins,
        "loses": pair.loses,
        "cohens_d_z": result.effect.cohens_d_z,
        "odds_ratio": result.effect.odds_ratio,
        "minimum_detectable_effect": result.minimum_detectable_effect,
        "examples": result.n,
        "groups": result.n_clusters,
        "seeds_a": list(pair.a.seeds),
        "seeds_b": list(pair.b.seeds),
        "seed_means_a": list(result.seeds_a.means),
        "seed_means_b": list(result.seeds_b.means),
        "seed_difference_range": list(result.seed_difference_range),
        "conditional_on": result.conditional_on,
    }


def clean(value: Any) -> Any:
    """Plain JSON values: NumPy numbers unwrapped, NaN, NA and infinity as None."""
    if value is pd.NA:
        return None
    if isinstance(value, Mapping):
        return {str(key): clean(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [clean(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def views_record(compared: SetComparison) -> dict[str, Any]:
    """Everything of a test set that the page draws, in the units of the score and of the costs.

    What the runs do not allow is None or empty. Models are named by the labels of
    ``configurations``.
    """
    views, contrast = compared.views, compared.views.contrast
    models = contrast and {
        "tuned": contrast.small.label,
        "base": contrast.base.label if contrast.base else None,
        "large": contrast.large.label if contrast.large else None,
    }
    return {
        "points": [_point(p, costs=p.costs) for p in compared.points],
        "pareto_fronts": [
            {"cost": f.cost, "configurations": f.labels, "hypervolume_share": f.share}
            for f in compared.fronts
        ],
        "views_are_about": models,
        "hybrid": _hybrid(views.hybrid),
        "rank_curves": [_curve(curve) for curve in views.ranks],
        "learning_curves": [_learning(entry) for entry in views.learning],
        "scaling": _scaling(views.scaling, compared.test.sign),
        "strata": [_stratum(stratum) for stratum in views.strata],
        "calibration": [asdict(entry) for entry in views.calibration],
        "confusion": [asdict(confusion) for confusion in views.confusion],
    }


def _point(point: Point, **more: Any) -> dict[str, Any]:
    interval = [point.low, point.high]
    return {"configuration": point.label, "score": point.score, "interval_95": interval, **more}


def _hybrid(curve: RoutingCurve | None) -> dict[str, Any] | None:
    """The share of prompts sent to the large model against the score."""
    if curve is None:
        return None
    best = {"share": curve.best_share, "score": curve.best_score}
    return {
        **{name: getattr(curve, name) for name in ("shares", "scores", "oracle", "random")},
        "best": {**best, "score_held_out": curve.held_out_score},
        "gain_captured": curve.gain_captured,
    }


def _curve(curve: Curve) -> dict[str, Any]:
    points = [{"x": x, **_point(p)} for x, p in zip(curve.x, curve.points, strict=True)]
    return {"name": curve.name, "points": points}


def _learning(entry: LearningCurve) -> dict[str, Any]:
    found = entry.overtaking
    record = found and {
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
    levels = [
        {
            "value": level.value,
            "examples": level.examples,
            "scores": level.means,
            "scores_interval_95": level.intervals,
            "gain": level.tested and level.tested.gain,
            "interval_95": [level.tested and level.tested.low, level.tested and level.tested.high],
            "p_corrected": level.tested and level.tested.p,
        }
        for level in stratum.levels
    ]
    return {"name": stratum.name, "against": stratum.against, "levels": levels}
