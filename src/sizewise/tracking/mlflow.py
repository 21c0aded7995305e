"""MLflow: one run per job, found again by its id when the job goes on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from sizewise.errors import ConfigError
from sizewise.record.directories import RunDir
from sizewise.record.history import HistoryReader, Line
from sizewise.record.outcome import Outcome
from sizewise.tracking.summary import RunContext, numbers_only, summary_values

RUN_TAG = "sizewise.run_id"
LINES_TAG = "sizewise.lines"
PARAM_LENGTH = 500


@dataclass(frozen=True)
class MlflowBackend:
    """``logger=mlflow``. ``tracking_uri`` null: ``MLFLOW_TRACKING_URI``, which has to be set."""

    experiment: str = "sizewise"
    tracking_uri: str | None = None

    def check(self) -> None:
        if find_spec("mlflow") is None:
            raise ConfigError(
                "logger=mlflow needs the package mlflow. "
                "Install it with `pip install 'sizewise[mlflow]'`."
            )
        uri = self._uri
        if uri is None or "://" not in uri or uri.startswith("file:"):
            raise ConfigError(
                f"logger=mlflow does not know where to write: the address is {uri!r}. Set "
                "MLFLOW_TRACKING_URI or logger.backends.mlflow.tracking_uri to a server "
                "(https://…) or a database (sqlite:////…/runs.db); MLflow no longer takes folders."
            )

    def start(self, context: RunContext) -> MlflowRunLogger:
        self.check()
        return MlflowRunLogger(context, self.experiment, self._uri or "")

    @property
    def _uri(self) -> str | None:
        return self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")


class MlflowRunLogger(Logger):
    """Sends the lines of ``metrics.jsonl`` that the server does not have yet."""

    def __init__(self, context: RunContext, experiment: str, tracking_uri: str) -> None:
        super().__init__()
        self.context = context
        self.experiment_name = experiment
        self.tracking_uri = tracking_uri
        self._reader = HistoryReader(RunDir(context.run_dir).history)
        self._client: Any = None
        self._run_id = ""

    @property
    def name(self) -> str:
        return self.experiment_name

    @property
    def version(self) -> str:
        return self.context.run_id

    @property
    def client(self) -> Any:
        """The MLflow client, with the run opened or found again."""
        if self._client is None:
            from mlflow.tracking import MlflowClient

            client = MlflowClient(tracking_uri=self.tracking_uri)
            number = experiment_id(client, self.experiment_name)
            self._run_id = self._find(client, number) or self._create(client, number)
            self._client = client
        return self._client

    def _find(self, client: Any, experiment_id: str) -> str | None:
        query = f"tags.`{RUN_TAG}` = '{self.context.run_id}'"
        runs = client.search_runs([experiment_id], filter_string=query, max_results=1)
        if not runs:
            return None
        self._reader.number = int(runs[0].data.tags.get(LINES_TAG, 0))
        client.set_terminated(runs[0].info.run_id, status="RUNNING")
        return str(runs[0].info.run_id)

    def _create(self, client: Any, experiment_id: str) -> str:
        context = self.context
        tags = {RUN_TAG: context.run_id, "group": context.group or "", "job": context.job_type}
        tags |= {tag: "true" for tag in context.tags}
        name = context.run_dir.name
        run_id = str(client.create_run(experiment_id, run_name=name, tags=tags).info.run_id)
        for key, value in context.config.items():
            client.log_param(run_id, safe(key), str(value)[:PARAM_LENGTH])
        return run_id

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The resolved configuration is sent when the run is opened."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        client = self.client
        fresh = self._reader.new_lines()
        for _, line in fresh:
            self._send(client, line)
        if fresh:
            client.set_tag(self._run_id, LINES_TAG, str(self._reader.number))

    def _send(self, client: Any, line: Line) -> None:
        from mlflow.entities import Metric

        moment = int(line.time * 1000)
        step = line.step or 0
        metrics = [Metric(safe(k), v, moment, step) for k, v in line.values.items()]
        client.log_batch(self._run_id, metrics=metrics)

    @rank_zero_only
    def finish(self, outcome: Outcome | None, error: bool) -> None:
        if self._client is None and outcome is None:
            return
        try:
            self.log_metrics({})
            values = summary_values(outcome, self.context.run_dir) if outcome else {}
            for key, value in numbers_only(values).items():
                self.client.log_metric(self._run_id, safe(f"summary/{key}"), value)
        finally:
            self.client.set_terminated(self._run_id, status="FAILED" if error else "FINISHED")


def safe(name: str) -> str:
    """Replace what MLflow does not allow in a name (the ``@`` before a data set's name)."""
    return "".join(c if c.isalnum() or c in "_-./ :" else "_" for c in name)


def experiment_id(client: Any, name: str) -> str:
    """Other jobs may make the experiment as well."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)
