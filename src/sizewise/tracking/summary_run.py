"""The one W&B run that stands for a whole sweep: all outcomes as a table, and the pictures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sizewise.files import write_atomically
from sizewise.record.outcome import Outcome
from sizewise.tracking.summary import RunContext
from sizewise.tracking.wandb_backend import WandbBackend
from sizewise.tracking.wandb_logger import choose_mode, import_wandb, open_run

MARKER = "wandb-summary.sha256"
TARGET = "sizewise.tracking.wandb_backend.WandbBackend"


@dataclass(frozen=True)
class SweepSummary:
    """What the summary run shows.

    Attributes:
        columns, rows: the table of all outcomes, plain values.
        values: the run's summary (verdict, number of runs, best score, …).
        images: pictures by name.
        figures: plotly figures by name (parallel coordinates, size against quality).
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    values: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, Path] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Hash of table and values: the same outcomes need no second summary."""
        text = json.dumps([self.columns, self.rows, self.values], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


def wandb_options(outcomes: Sequence[Outcome]) -> dict[str, Any] | None:
    for outcome in outcomes:
        logger = outcome.config.get("logger") or {}
        for node in (logger.get("backends") or {}).values():
            if isinstance(node, Mapping) and node.get("_target_") == TARGET:
                return {key: value for key, value in node.items() if key != "_target_"}
    return None


def summary_id(group: str) -> str:
    """Stable id of a sweep's summary run: the same sweep, the same run."""
    return "summary-" + hashlib.sha256(group.encode()).hexdigest()[:16]


def write_summary_run(
    sweep_dir: Path, group: str, options: Mapping[str, Any], summary: SweepSummary
) -> bool:
    """Write the summary run of a sweep, replacing an older one; return whether it was written.

    Nothing is done where the same summary is there already: a finished sweep that is started
    again adds no run.
    """
    marker = sweep_dir / "wandb" / MARKER
    if marker.is_file() and marker.read_text(encoding="utf-8").strip() == summary.fingerprint:
        return False
    backend = WandbBackend(**options)
    context = RunContext(sweep_dir, summary_id(group), group, "summary", ("summary",))
    context = replace(context, config={"sweep": group, "runs": len(summary.rows)})
    mode = choose_mode(backend.mode)
    run = open_run(context, mode, backend.project, backend.entity, stats=False)
    try:
        _log(run, summary)
    finally:
        run.finish()
    marker.parent.mkdir(exist_ok=True)
    write_atomically(marker, summary.fingerprint + "\n")
    return True


def _log(run: Any, summary: SweepSummary) -> None:
    wandb = import_wandb()
    rows = [[_cell(value) for value in row] for row in summary.rows]
    values: dict[str, Any] = {"runs": wandb.Table(columns=list(summary.columns), data=rows)}
    values |= {name: wandb.Image(str(path)) for name, path in summary.images.items()}
    values |= {name: wandb.Plotly(figure) for name, figure in summary.figures.items()}
    run.log(values)
    run.summary.update(dict(summary.values))


def _cell(value: Any) -> str | float | None:
    if value is None or value != value:
        return None
    return value if isinstance(value, (str, int, float)) else str(value)
