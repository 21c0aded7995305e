"""TensorBoard and CSV: local trackers, written anew from ``metrics.jsonl`` when a run goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from sizewise.errors import ConfigError
from sizewise.record.directories import RunDir
from sizewise.record.history import HistoryReader
from sizewise.record.outcome import Outcome
from sizewise.tracking.summary import RunContext, numbers_only, summary_values


@dataclass(frozen=True)
class CsvBackend:
    """``logger=csv``: the history as ``csv/metrics.csv`` in the run's directory."""

    folder: str = "csv"

    def start(self, context: RunContext) -> LocalLogger:
        def make(directory: Path) -> Logger:
            return CSVLogger(directory.parent, name=directory.name, version="")

        return LocalLogger(context, self.folder, make)


@dataclass(frozen=True)
class TensorBoardBackend:
    """``logger=tensorboard``: event files under ``tensorboard/`` in the run's directory."""

    folder: str = "tensorboard"

    def check(self) -> None:
        from pytorch_lightning.loggers.tensorboard import _TENSORBOARD_AVAILABLE

        if not _TENSORBOARD_AVAILABLE:
            raise ConfigError(
                "logger=tensorboard needs the package tensorboard. "
                "Install it with `pip install 'sizewise[tensorboard]'`."
            )

    def start(self, context: RunContext) -> LocalLogger:
        self.check()

        def make(directory: Path) -> Logger:
            return TensorBoardLogger(
                directory.parent, name=directory.name, version="", default_hp_metric=False
            )

        return LocalLogger(context, self.folder, make)


class LocalLogger(Logger):
    """A Lightning logger with a folder of its own that is a copy of ``metrics.jsonl``."""

    def __init__(self, context: RunContext, folder: str, make: Callable[[Path], Logger]) -> None:
        super().__init__()
        self.directory = context.run_dir / folder
        self._run_dir = context.run_dir
        self._make = make
        self._inner: Logger | None = None
        self._reader = HistoryReader(RunDir(context.run_dir).history)

    @property
    def name(self) -> str:
        return self.directory.name

    @property
    def version(self) -> str:
        return ""

    @property
    def inner(self) -> Logger:
        """The Lightning logger, on an empty folder; made on first use."""
        if self._inner is None:
            shutil.rmtree(self.directory, ignore_errors=True)
            self._inner = self._make(self.directory)
        return self._inner

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None: ...

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        for _, line in self._reader.new_lines():
            self.inner.log_metrics(dict(line.values), step=line.step)

    @rank_zero_only
    def finish(self, outcome: Outcome | None, error: bool) -> None:
        if self._inner is None and outcome is None:
            return
        self.log_metrics({})
        if outcome is not None:
            values = numbers_only(summary_values(outcome, self._run_dir))
            last = self._reader.last_step
            self.inner.log_metrics({f"summary/{k}": v for k, v in values.items()}, step=last)
        self.inner.save()
        self.inner.finalize("failed" if error else "success")
