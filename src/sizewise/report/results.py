"""``results.json``: the whole comparison for machines, with NaN and infinity as null."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from sizewise.config import PricesConfig
from sizewise.report.comparison import Comparison, SetComparison
from sizewise.report.pair import Pair
from sizewise.report.results_views import views_record

RESULTS_VERSION = 2


def results_record(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison as plain values; scores are in their own units, gains signed."""
    record = {
        "version": RESULTS_VERSION,
        "runs": len(comparison.runs),
        "run_ids": [run.outcome.run_id for run in comparison.runs],
        "by": list(comparison.by),
        "problems": [{"where": p.where, "reason": p.reason} for p in comparison.problems],
        "test_sets": [_set(compared) for compared in comparison.sets],
    }
    found: dict[str, Any] = clean(record)
    return found


def results_text(comparison: Comparison) -> str:
    """Return ``results_record`` as strict JSON."""
    return json.dumps(results_record(comparison), indent=1, ensure_ascii=False, allow_nan=False)


def _set(compared: SetComparison) -> dict[str, Any]:
    test, verdict = compared.test, compared.verdict
    return {
        "dataset": test.dataset,
        "fingerprint": test.fingerprint,
        "metric": test.primary,
        "direction": test.direction,
        "examples_compared": len(test.ids),
        "verdict": {
            "status": verdict.status,
            "headline": verdict.headline,
            "sentence": verdict.sentence,
        },
        "warnings": compared.warnings,
        "configurations": compared.everything.to_dict("records"),
        "pairs": [pair_record(pair) for pair in compared.pairs],
        "prices": asdict(compared.prices or PricesConfig()),
        "paid_back": [asdict(entry) for entry in compared.paid_back],
        **views_record(compared),
    }


def pair_record(pair: Pair) -> dict[str, Any]:
    """One pair with everything that a claim about it needs."""
    result = pair.result
    return {
        "question": pair.question,
        "a": pair.a.label,
        "b": pair.b.label,
        "mean_a": result.mean_a,
        "mean_b": result.mean_b,
        "gain": pair.gain,
        "interval_95": [pair.low, pair.high],
        "test": result.test,
        "p_value": result.p_value,
        "p_holm": pair.p_corrected,
        "found": pair.found,
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
    """Plain JSON values: NumPy numbers unwrapped, NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {str(key): clean(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [clean(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
