"""What two runs have to agree on: everything but times, memory and where they ran."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

TIMED = ("latency", "batch_latency")
TIMED_SCORES = ("efficiency/latency", "efficiency/batch_latency", "efficiency/examples_per_second",
                "efficiency/tokens_per_second")  # fmt: skip


def comparable(run_dir: Path) -> dict[str, Any]:
    """Return the outcome of a run without what differs between two undisturbed runs."""
    record = json.loads((run_dir / "outcome.json").read_text())
    for key in ("cost", "provenance", "run_id", "files", "sha256"):
        record.pop(key)
    for key in ("paths", "sweep"):
        record["config"].pop(key)
    for kind in ("base", "tuned"):
        for evaluation in (record[kind] or {}).values():
            evaluation.pop("predictions")
            evaluation["scores"] = untimed(evaluation["scores"])
    return record


def untimed(scores: dict[str, float]) -> dict[str, float]:
    """Drop the scores that measure time."""
    return {k: v for k, v in scores.items() if not k.startswith(TIMED_SCORES)}


def answers(path: Path) -> list[dict[str, Any]]:
    """Return a file of predictions without times."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        {**{k: v for k, v in row.items() if k not in TIMED}, "scores": untimed(row["scores"])}
        for row in rows
    ]


def without_hashes(value: Any) -> Any:
    """Drop the hashes of files, which rounding changes."""
    if isinstance(value, dict):
        return {k: without_hashes(v) for k, v in value.items() if "sha256" not in k}
    return [without_hashes(item) for item in value] if isinstance(value, list) else value


def near(value: Any, tolerance: float = 1e-5) -> Any:
    """Let figures differ by ``tolerance``, as jobs do that share their passes with others."""
    if isinstance(value, float):
        return pytest.approx(value, rel=tolerance, abs=tolerance, nan_ok=True)
    if isinstance(value, dict):
        return {k: near(v, tolerance) for k, v in value.items()}
    return [near(item, tolerance) for item in value] if isinstance(value, list) else value
