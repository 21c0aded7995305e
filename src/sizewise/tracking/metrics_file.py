"""The Lightning logger that writes a run's own ``metrics.jsonl``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from sizewise.record.directories import RunDir
from sizewise.record.history import Line, before_step, read_history, rewrite
from sizewise.record.outcome import Outcome


class MetricsFile(Logger):
    """Appends every logged set of values to ``metrics.jsonl``; the source of all trackers.

    When an interrupted run goes on from a checkpoint, what it logged after that checkpoint would
    be there twice. Everything from the first step that is logged again is cut off: Lightning
    counts steps from 0, so what came before the checkpoint has smaller steps.
    """

    def __init__(self, run_dir: Path) -> None:
        super().__init__()
        self.path = RunDir(run_dir).history
        self._continued = False

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    @property
    def log_dir(self) -> str:
        return self.save_dir

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The configuration is stored in ``config.yaml``."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if not self._continued and self.path.is_file():
            lines = read_history(self.path)
            rewrite(self.path, lines if step is None else before_step(lines, step))
        self._continued = True
        line = Line(step, round(time.time(), 3), {k: float(v) for k, v in metrics.items()})
        with self.path.open("a", encoding="utf-8") as handle:
            handle.write(line.to_text())

    def finish(self, outcome: Outcome | None, error: bool) -> None:
        """Every line is on disk already, and the outcome is a file of its own."""
