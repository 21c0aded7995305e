"""What every tracker is told about the run it records."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sizewise
from sizewise.record.identity import canonical_config, flatten
from sizewise.record.outcome import Evaluation, Outcome
from sizewise.record.provenance import code_state, package_versions
from sizewise.tracking.answers import gain_interval


@dataclass(frozen=True)
class RunContext:
    """One run, as trackers see it.

    Attributes:
        run_id: stable id made from the run's identity: the same run, the same id, every time.
        group: name of the sweep, or None for a single run.
        job_type: ``train``, ``evaluate``, ``configuration`` or ``summary``.
        config: what the run depends on, by dotted keys (``lora.r``); see ``tracked_config``.
        log_examples: whether texts of examples may be sent to trackers.
        name: shown name; empty: that of the directory.
    """

    run_dir: Path
    run_id: str
    group: str | None = None
    job_type: str = "train"
    tags: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    log_examples: bool = False
    name: str = ""


def tracked_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration by dotted keys, without what makes no difference to the run.

    A run that trains nothing has no adapter's or optimiser's settings: they are not what it is.
    Places, trackers and the shape of the sweep are left out, as of the run's identity. A finished
    run that is scored again keeps the settings of its training.
    """
    plain = dict(config)
    if plain.get("run"):
        plain |= {"stage": "full", "run": None, "adapter": None}
    return flatten(canonical_config(plain))


def tracked_facts() -> dict[str, Any]:
    """Return the state of the code and the versions of what computes, by dotted keys."""
    code = code_state(Path(__file__).parent)
    return {
        "git.commit": code["commit"],
        "git.dirty": code["dirty"],
        "versions.sizewise": sizewise.__version__,
        "versions.python": platform.python_version(),
        **{f"versions.{name}": version for name, version in package_versions().items()},
    }


def size_config(outcome: Outcome) -> dict[str, int]:
    """Return the numbers of parameters, which are known once the model is loaded."""
    model = outcome.model
    return {
        "model.params_base": model.params_base,
        "model.params_total": model.params_total,
        "model.params_trainable": model.params_trainable,
    }


COSTS = (
    "train_seconds", "train_tokens", "train_steps", "train_peak_bytes", "eval_seconds",
    "energy_joules",
)  # fmt: skip


def summary_values(outcome: Outcome, run_dir: Path | None = None) -> dict[str, float | str]:
    """Return the summary of a run as flat names and plain values; what is not known is left out.

    ``run_dir``: where its answers lie, for the interval of the gain; None leaves that out.
    """
    interval = gain_interval(outcome, run_dir) if run_dir is not None else None
    values: dict[str, float | str | None] = {
        **_size(outcome),
        **{f"cost/{name}": getattr(outcome.cost, name) for name in COSTS},
        **_quality(outcome),
        **dict(zip(("quality/gain_low", "quality/gain_high"), interval or (), strict=False)),
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
