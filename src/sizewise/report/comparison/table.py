"""The table of configurations (means over seeds) and the table of runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from sizewise.record.outcome import Evaluation
from sizewise.report.comparison.arms import Arm, TestSet
from sizewise.report.comparison.pairs import Pair
from sizewise.report.comparison.runs import Run


def arm_rows(test: TestSet, gains: Mapping[int, Pair], own: bool = True) -> pd.DataFrame:
    """One row per configuration, best first.

    Gains are improvements of tuned arms over their own base (``gains``, by position), with the 95 %
    interval paired on the test examples. ``own`` leaves out zero-shot scores that only came with
    tuned runs.
    """
    rows = [_row(test, arm, gains.get(place)) for place, arm in enumerate(test.arms)]
    shown = [row for row, arm in zip(rows, test.arms, strict=True) if arm.own or not own]
    frame = pd.DataFrame(shown, columns=list(rows[0]))
    order = frame["score"] * test.sign
    return frame.loc[order.sort_values(ascending=False, na_position="last", kind="stable").index]


def _row(test: TestSet, arm: Arm, gain: Pair | None) -> dict[str, Any]:
    model, outcome = arm.model, arm.first.run.outcome
    base = test.zero_shot_of(arm)
    score = arm.score(test.primary)
    zero_shot = base.score(test.primary) if base is not None else None
    return {
        "label": arm.label,
        "kind": arm.kind,
        "dataset": test.dataset,
        "metric": test.primary,
        "model": model.name,
        "params": arm.params,
        "trainable": model.params_trainable if arm.fitted else 0,
        "lora": model.lora_method if arm.tuned else "none",
        "r": model.lora_r if arm.tuned else None,
        "quantization": model.quantization,
        "train_examples": arm.max_train or None,
        "memory_bytes": model.memory_bytes,
        "adapter_bytes": model.adapter_bytes if arm.tuned else 0,
        "train_seconds": arm.train_seconds,
        "latency_seconds": arm.latency,
        "energy_joules": arm.energy_joules,
        "seeds": len(arm.members) if arm.tuned else None,
        "zero_shot": zero_shot,
        "tuned": score if arm.fitted else None,
        "score": score,
        "gain": gain.gain if gain else None,
        "gain_low": gain.low if gain else None,
        "gain_high": gain.high if gain else None,
        "p_value": gain.result.p_value if gain else None,
        "unparsed": arm.unparsed,
        "examples": test.compared,
        "fingerprint": test.fingerprint,
        "code_commit": (outcome.provenance.get("code") or {}).get("commit"),
    }


def run_rows(
    runs: Sequence[Run], scores: Callable[[Evaluation], Mapping[str, float]]
) -> pd.DataFrame:
    rows = []
    for run in runs:
        outcome = run.outcome
        row: dict[str, Any] = {
            "run_id": outcome.run_id,
            "directory": run.directory.name,
            "model": outcome.model.name,
            "params": outcome.model.params_total,
            "lora": outcome.model.lora_method,
            "r": outcome.model.lora_r,
            "quantization": outcome.model.quantization,
            "dataset": outcome.data.name,
            "train_examples": outcome.data.sizes.get("train"),
            "seed": outcome.seed,
            "memory_bytes": outcome.model.memory_bytes,
            "train_seconds": outcome.cost.train_seconds,
            "eval_seconds": outcome.cost.eval_seconds,
            "val_loss": outcome.validation.get("val_loss"),
        }
        for kind, evaluations in (("zero_shot", outcome.base), ("tuned", outcome.tuned or {})):
            for name, evaluation in evaluations.items():
                row |= {f"{kind}@{name}/{k}": v for k, v in scores(evaluation).items()}
        rows.append(row)
    return pd.DataFrame(rows)
