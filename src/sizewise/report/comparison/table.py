"""The table of configurations (means over seeds) and the table of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from sizewise.report.comparison.arms import Candidate, TestSet
from sizewise.report.comparison.pairs import Pair
from sizewise.report.comparison.runs import Run


def candidate_rows(test: TestSet, gains: Mapping[int, Pair], own: bool = True) -> pd.DataFrame:
    """One row per configuration, best first.

    Columns: label, kind, model, params, trainable, lora, r, quantization, dataset, train_examples,
    memory_bytes, adapter_bytes, train_seconds, latency_seconds, energy_joules, seeds,
    zero_shot, tuned, score, gain, gain_low, gain_high, p_value, unparsed, examples. Gains
    are improvements, with the 95 % interval paired on the test examples.

    Args:
        test: the candidates.
        gains: of tuned candidates over their own base, by position.
        own: leave out zero-shot scores that only came with tuned runs.
    """
    rows = [
        _row(test, candidate, gains.get(position))
        for position, candidate in enumerate(test.candidates)
        if candidate.own or not own
    ]
    frame = pd.DataFrame(rows, columns=list(_row_columns()))
    order = frame["score"] * test.sign
    return frame.loc[order.sort_values(ascending=False, na_position="last", kind="stable").index]


def _row(test: TestSet, candidate: Candidate, gain: Pair | None) -> dict[str, Any]:
    model, outcome = candidate.model, candidate.first.run.outcome
    base = test.zero_shot_of(candidate)
    score = candidate.score(test.primary)
    zero_shot = base.score(test.primary) if base is not None else None
    return {
        "label": candidate.label,
        "kind": candidate.kind,
        "dataset": test.dataset,
        "metric": test.primary,
        "model": model.name,
        "params": candidate.params,
        "trainable": model.params_trainable if candidate.fitted else 0,
        "lora": model.lora_method if candidate.tuned else "none",
        "r": model.lora_r if candidate.tuned else None,
        "quantization": model.quantization,
        "train_examples": candidate.max_train or None,
        "memory_bytes": model.memory_bytes,
        "adapter_bytes": model.adapter_bytes if candidate.tuned else 0,
        "train_seconds": candidate.train_seconds,
        "latency_seconds": candidate.latency,
        "energy_joules": candidate.energy_joules,
        "seeds": len(candidate.members) if candidate.tuned else None,
        "zero_shot": zero_shot,
        "tuned": score if candidate.fitted else None,
        "score": score,
        "gain": gain.gain if gain else None,
        "gain_low": gain.low if gain else None,
        "gain_high": gain.high if gain else None,
        "p_value": gain.result.p_value if gain else None,
        "unparsed": unparsed_rate(candidate),
        "examples": candidate.first.evaluation.examples,
        "fingerprint": test.fingerprint,
        "code_commit": (outcome.provenance.get("code") or {}).get("commit"),
    }


def _row_columns() -> tuple[str, ...]:
    return (
        "label", "kind", "dataset", "metric", "model", "params", "trainable", "lora", "r",
        "quantization", "train_examples", "memory_bytes", "adapter_bytes", "train_seconds",
        "latency_seconds", "energy_joules", "seeds", "zero_shot", "tuned", "score", "gain",
        "gain_low", "gain_high", "p_value", "unparsed", "examples", "fingerprint", "code_commit",
    )  # fmt: skip


def unparsed_rate(candidate: Candidate) -> float | None:
    """Share of answers in which nothing could be parsed; None where no metric counts them."""
    for name in candidate.first.evaluation.scores:
        if name == "unparsed" or name.endswith("/unparsed"):
            return candidate.score(name)
    return None


def run_rows(runs: Sequence[Run]) -> pd.DataFrame:
    """One row per run: identity, configuration in short, costs, and all its scores."""
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
                row |= {f"{kind}@{name}/{k}": v for k, v in evaluation.scores.items()}
        rows.append(row)
    return pd.DataFrame(rows)
