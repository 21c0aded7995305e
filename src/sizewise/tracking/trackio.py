"""Trackio: one run per job in a database on this machine, a replay of ``metrics.jsonl``.

Lines are written as Trackio's own importers write them and not by ``trackio.init``, which prints,
follows ``TRACKIO_SPACE_ID`` to the hub and asks it who is logged in.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from sizewise.errors import ConfigError
from sizewise.files import hash_text
from sizewise.record.directories import RunDir
from sizewise.record.history import HistoryReader, Line
from sizewise.record.outcome import Outcome
from sizewise.tracking.answers import shown_tables
from sizewise.tracking.summary import RunContext, size_config, summary_values

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrackioBackend:
    """``logger=trackio``: a project of Trackio on this machine; nothing is sent.

    Attributes:
        project: what ``trackio show --project`` opens. The folder is ``TRACKIO_DIR``, or
            ``trackio`` in the hub's cache.
        examples: how many texts are shown where ``logger.log_examples`` allows it.
    """

    project: str = "sizewise"
    examples: int = 100

    def check(self) -> None:
        if find_spec("trackio") is None:
            raise ConfigError(
                "logger=trackio needs the package trackio. "
                "Install it with `pip install 'sizewise[trackio]'`."
            )
        from trackio.sqlite_storage import SQLiteStorage

        try:
            SQLiteStorage.validate_project_name(self.project)
        except ValueError as error:
            raise ConfigError(f"logger.backends.trackio.project: {error}") from error
        self._check_folder()

    def _check_folder(self) -> None:
        from trackio import utils

        folder = Path(utils.TRACKIO_DIR)
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise ConfigError(
                f"logger=trackio cannot write to {folder}. Set TRACKIO_DIR to a folder you can "
                "write to, or leave it out: logger=none."
            )

    def start(self, context: RunContext) -> TrackioLogger:
        self.check()
        return TrackioLogger(context, self.project, self.examples)


class TrackioLogger(Logger):
    """Adds the lines of ``metrics.jsonl``; one that Trackio has already is not added again.

    What cannot be written now (a full disk, a lock that somebody holds) is written with the next
    line or at the end: a tracker ends no training.
    """

    def __init__(self, context: RunContext, project: str, examples: int) -> None:
        super().__init__()
        self.context = context
        self.project = project
        self._examples = examples
        self._reader = HistoryReader(RunDir(context.run_dir).history)
        self._step = 0
        self._fragments: Any = None
        self._seen: Counter[str] = Counter()
        self._waiting: list[dict[str, Any]] = []
        self._warned = False

    @property
    def name(self) -> str:
        return self.project

    @property
    def version(self) -> str:
        return self.context.run_id

    @property
    def run_name(self) -> str:
        return self.context.name or self.context.run_dir.name

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The resolved configuration is written with the first line."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._waiting += [self._entry(line) for _, line in self._reader.new_lines()]
        self._send(self._config())

    @rank_zero_only
    def finish(self, outcome: Outcome | None, error: bool) -> None:
        if not self._seen and outcome is None:
            return
        self.log_metrics({})
        if outcome is not None:
            folder = self.context.run_dir
            summary = summary_values(outcome, folder)
            tables = shown_tables(outcome, folder, self.context.log_examples, self._examples)
            values = {f"summary/{key}": value for key, value in summary.items()} | {
                name: self._table(columns, rows) for name, (columns, rows) in tables.items()
            }
            self._waiting.append(self._line("end", values, datetime.now(UTC)))
            self._send({**self._config(), **size_config(outcome)})
        if self._waiting:
            log.warning(
                "Trackio lacks %d lines of %s; they stay in the run's own files.",
                len(self._waiting), self.run_name,
            )  # fmt: skip

    def _send(self, config: dict[str, Any]) -> None:
        """Write what waits; it goes on waiting where that fails, which is said once."""
        try:
            self._write(self._waiting, config)
        except (OSError, sqlite3.Error) as error:
            if not self._warned:
                log.warning(
                    "Trackio cannot be written to: %s. The run goes on; it is tried again.", error
                )
            self._warned = True
        else:
            self._waiting = []

    def _config(self) -> dict[str, Any]:
        context = self.context
        told = {"job_type": context.job_type, "tags": list(context.tags), **context.config}
        return {key.lstrip("_"): value for key, value in told.items()} | {"_Group": context.group}

    def _entry(self, line: Line) -> dict[str, Any]:
        """A line under an id that it has again when an interrupted run repeats its step.

        Its place in the file is none: that changes where a damaged line before it is left out.
        """
        self._step = self._step if line.step is None else line.step
        key = f"{line.step}:{hash_text(' '.join(sorted(line.values)), 16)}"
        self._seen[key] += 1
        moment = datetime.fromtimestamp(line.time, UTC)
        return self._line(f"{key}:{self._seen[key]}", line.values, moment)

    def _line(self, key: str, values: Mapping[str, Any], moment: datetime) -> dict[str, Any]:
        from trackio.utils import RESERVED_KEYS

        named = {f"__{k}" if k in RESERVED_KEYS else k: value for k, value in values.items()}
        return {
            "metrics": named,
            "step": self._step,
            "timestamp": moment.isoformat(),
            "log_id": f"{self.context.run_id}:{key}",
        }

    def _table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
        import trackio

        table = trackio.Table(columns=list(columns), data=[list(row) for row in rows])
        return table._to_dict(self.project, self.run_name, self._step)

    def _write(self, lines: Sequence[Mapping[str, Any]], config: dict[str, Any]) -> None:
        """Add the lines whose ids are new; on a network's disk as files that Trackio takes in."""
        from trackio import fragments, utils
        from trackio.sqlite_storage import SQLiteStorage

        if not lines:
            return
        run = {"project": self.project, "run": self.run_name, "run_id": self.context.run_id}
        if utils.get_storage_mode() == "jsonl":
            self._fragments = self._fragments or fragments.FragmentWriter()
            records = [fragments.metric_record({**run, **line}) for line in lines]
            records[0]["config"] = utils.serialize_values(config)
            self._fragments.write_local(records)
            return
        metrics, steps, moments, ids = (
            [line[key] for line in lines] for key in ("metrics", "step", "timestamp", "log_id")
        )
        SQLiteStorage.bulk_log(
            **run,
            metrics_list=metrics,
            steps=steps,
            timestamps=moments,
            config=config,
            log_ids=ids,
        )
