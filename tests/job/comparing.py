"""What two runs have to agree on: everything but times, memory and where they ran."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
