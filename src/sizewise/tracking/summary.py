"""The figures of an outcome that a tracker shows for a run: size, cost, quality and the gain."""

from __future__ import annotations

import math
from collections.abc import Mapping

from sizewise.outcome import Evaluation, Outcome


def summary_values(outcome: Outcome) -> dict[str, float | str]:
    """Return the summary of a run as flat names and plain values; what is not known is left out."""
    values: dict[str, float | str | None] = {
        **_size(outcome),
        **_cost(outcome),
        **_quality(outcome),
        "data/dataset": outcome.data.name,
        "data/test_examples": outcome.data.sizes.get("test"),
        "objective": outcome.objective,
    }
    return {name: value for name, value in values.items() if value is not None}


def numbers_only(values: Mapping[str, float | str]) -> dict[str, float]:
    """Keep the finite numbers, for trackers that take nothing else."""
    return {
        name: float(value)
        for name, value in values.items()
        if not isinstance(value, str) and math.isfinite(value)
    }


def _size(outcome: Outcome) -> dict[str, float | str | None]:
    model = outcome.model
    return {
        "size/params": model.params_total,
        "size/params_trainable": model.params_trainable,
        "size/memory_bytes": model.memory_bytes,
        "size/base_bytes": model.base_bytes,
        "size/adapter_bytes": model.adapter_bytes,
        "model/name": model.name,
        "model/quantization": model.quantization,
        "model/lora": model.lora_method,
        "model/lora_r": model.lora_r,
    }


def _cost(outcome: Outcome) -> dict[str, float | str | None]:
    cost = outcome.cost
    return {
        "cost/train_seconds": cost.train_seconds,
        "cost/train_tokens": cost.train_tokens,
        "cost/train_steps": cost.train_steps,
        "cost/train_peak_bytes": cost.train_peak_bytes,
        "cost/eval_seconds": cost.eval_seconds,
        "cost/energy_joules": cost.energy_joules,
    }


def _quality(outcome: Outcome) -> dict[str, float | str | None]:
    values: dict[str, float | str | None] = {"quality/metric": outcome.primary}
    own = outcome.data.name
    zero_shot = _primary(outcome.base.get(own), outcome.primary)
    tuned = _primary(outcome.tuned.get(own), outcome.primary) if outcome.tuned else None
    values["quality/zero_shot"] = zero_shot
    values["quality/tuned"] = tuned
    values["quality/score"] = tuned if outcome.tuned else zero_shot
    if tuned is not None and zero_shot is not None:
        values["quality/gain"] = tuned - zero_shot
    for kind, evaluations in (("zero_shot", outcome.base), ("tuned", outcome.tuned or {})):
        for name, evaluation in evaluations.items():
            prefix = kind if name == own else f"{kind}@{name}"
            values |= {f"{prefix}/{score}": value for score, value in evaluation.scores.items()}
    return values


def _primary(evaluation: Evaluation | None, primary: str) -> float | None:
    return None if evaluation is None else evaluation.scores.get(primary)
