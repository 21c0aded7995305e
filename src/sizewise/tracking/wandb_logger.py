"""W&B: one run per job, a replay of the job's ``metrics.jsonl``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from sizewise.outcome import Outcome
from sizewise.sweep.files import METRICS_FILE
from sizewise.tracking.context import RunContext
from sizewise.tracking.examples import example_rows
from sizewise.tracking.history import HistoryReader
from sizewise.tracking.summary import summary_values
from sizewise.tracking.wandb_session import choose_mode, import_wandb, open_run


class SizewiseWandbLogger(WandbLogger):
    """Lightning's logger whose history is the run's ``metrics.jsonl``, line by line.

    The step of W&B is the number of the line. A job that is started again offline writes one
    fresh folder with the whole history; online it sends the lines that the server does not have.

    Args:
        context: the run.
        project, entity, mode, system_metrics, examples: see ``WandbBackend``.
    """

    def __init__(
        self,
        context: RunContext,
        project: str,
        entity: str | None,
        mode: str,
        system_metrics: bool,
        examples: int,
    ) -> None:
        super().__init__(project=project, save_dir=str(context.run_dir), id=context.run_id)
        self._experiment: Any = None
        self.context = context
        self._mode = mode
        self._target = (project, entity, system_metrics)
        self._examples = examples
        self._reader = HistoryReader(context.run_dir / METRICS_FILE)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run; opened on first use."""
        if self._experiment is None:
            self._experiment = open_run(self.context, choose_mode(self._mode), *self._target)
            self._reader.number = self._experiment.step  # lines the server has already
            self._experiment.define_metric("trainer/global_step")
            self._experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        return self._experiment

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The resolved configuration is the run's config already: nothing to add."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Send what ``metrics.jsonl`` holds and W&B does not; these values are among it."""
        self._replay()

    def _replay(self) -> None:
        run = self.experiment
        for number, line in self._reader.new_lines():
            step = {} if line.step is None else {"trainer/global_step": line.step}
            run.log({**line.values, **step}, step=max(number, run.step))

    @rank_zero_only
    def finish(self, outcome: Outcome | None, error: bool) -> None:
        """Send the rest and the summary, and close the run whatever happens."""
        if self._experiment is None and outcome is None:
            return
        try:
            self._replay()
            if outcome is not None:
                self.experiment.summary.update(summary_values(outcome))
                self._log_examples(outcome)
        finally:
            self.experiment.finish(exit_code=1 if error else 0)
            self._experiment = None

    def _log_examples(self, outcome: Outcome) -> None:
        if not self.context.log_examples:
            return
        wandb = import_wandb()
        columns, rows = example_rows(outcome, self.context.run_dir, self._examples)
        self.experiment.log({"examples": wandb.Table(columns=columns, data=rows)})
