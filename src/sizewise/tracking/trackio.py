"""Trackio: one run per job in a database on this machine, a replay of ``metrics.jsonl``.

Lines are written as Trackio's own importers write them and not by ``trackio.init``, which prints,
follows ``TRACKIO_SPACE_ID`` to the hub and asks it who is logged in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from sizewise.errors import ConfigError
from sizewise.record.directories import RunDir
from sizewise.record.history import HistoryReader, Line
from sizewise.record.outcome import Outcome
from sizewise.tracking.answers import shown_tables
from sizewise.tracking.summary import RunContext, size_config, summary_values


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

    def start(self, context: RunContext) -> TrackioLogger:
        self.check()
        return TrackioLogger(context, self.project, self.examples)


class TrackioLogger(Logger):
    """Adds the lines of ``metrics.jsonl``; one that Trackio has already is not added again."""

    def __init__(self, context: RunContext, project: str, examples: int) -> None:
        super().__init__()
        self.context = context
        self.project = project
        self._examples = examples
        self._reader = HistoryReader(RunDir(context.run_dir).history)
        self._step = 0
        self._fragments: Any = None
        self._opened = False

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
        fresh = self._reader.new_lines()
        self._write([self._entry(number, line) for number, line in fresh], self._config())

    @rank_zero_only
    def finish(self, outcome: Outcome | None, error: bool) -> None:
        if not self._opened and outcome is None:
            return
        self.log_metrics({})
        if outcome is not None:
            folder = self.context.run_dir
            summary = summary_values(outcome, folder)
            tables = shown_tables(outcome, folder, self.context.log_examples, self._examples)
            values = {f"summary/{key}": value for key, value in summary.items()} | {
                name: self._table(columns, rows) for name, (columns, rows) in tables.items()
            }
            entry = self._line("end", values, datetime.now(UTC))
            self._write([entry], {**self._config(), **size_config(outcome)})

    def _config(self) -> dict[str, Any]:
        context = self.context
        told = {"job_type": context.job_type, "tags": list(context.tags), **context.config}
        return {key.lstrip("_"): value for key, value in told.items()} | {"_Group": context.group}

    def _entry(self, number: int, line: Line) -> dict[str, Any]:
        self._step = self._step if line.step is None else line.step
        return self._line(str(number), line.values, datetime.fromtimestamp(line.time, UTC))

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
        self._opened = True
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
