"""What every tracker is told about the run it records."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sizewise.record.outcome import Evaluation, Outcome
from sizewise.record.predictions import Prediction, read_predictions


@dataclass(frozen=True)
class RunContext:
    """One run, as trackers see it.

    Attributes:
        run_id: stable id made from the run's identity: the same run, the same id, every time.
        group: name of the sweep, or None for a single run.
        job_type: ``train``, ``evaluate`` or ``summary``.
        config: the resolved configuration as plain containers.
        log_examples: whether texts of examples may be sent to trackers.
    """

    run_dir: Path
    run_id: str
    group: str | None = None
    job_type: str = "train"
    tags: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    log_examples: bool = False


COSTS = (
    "train_seconds", "train_tokens", "train_steps", "train_peak_bytes", "eval_seconds",
    "energy_joules",
)  # fmt: skip


def summary_values(outcome: Outcome) -> dict[str, float | str]:
    """Return the summary of a run as flat names and plain values; what is not known is left out."""
    values: dict[str, float | str | None] = {
        **_size(outcome),
        **{f"cost/{name}": getattr(outcome.cost, name) for name in COSTS},
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


COLUMNS = ["id", "prompt", "reference", "base", "tuned"]


def example_rows(
    outcome: Outcome, run_dir: Path, limit: int
) -> tuple[list[str], list[list[str | None]]]:
    """Return column names and the first ``limit`` test examples with both models' answers."""
    own = outcome.data.name
    base = _by_id(outcome.base.get(own), run_dir)
    tuned = _by_id((outcome.tuned or {}).get(own), run_dir)
    rows: list[list[str | None]] = []
    for key in list(tuned or base)[:limit]:
        shown = tuned.get(key) or base[key]
        rows.append([key, shown.prompt, shown.reference, _text(base, key), _text(tuned, key)])
    return COLUMNS, rows


def _text(predictions: dict[str, Prediction], key: str) -> str | None:
    return predictions[key].text if key in predictions else None


def _by_id(evaluation: Evaluation | None, run_dir: Path) -> dict[str, Prediction]:
    if evaluation is None:
        return {}
    predictions = read_predictions(run_dir / evaluation.predictions.path)
    return {prediction.id: prediction for prediction in predictions}
