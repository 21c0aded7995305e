"""W&B: one run per job, a replay of the job's ``metrics.jsonl``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from sizewise.record.directories import RunDir
from sizewise.record.history import HistoryReader
from sizewise.record.outcome import Outcome
from sizewise.tracking.answers import shown_tables
from sizewise.tracking.summary import RunContext, size_config, summary_values
from sizewise.tracking.wandb_artifacts import Uploads, log_artifacts
from sizewise.tracking.wandb_run import choose_mode, import_wandb, open_run


class SizewiseWandbLogger(WandbLogger):
    """Lightning's logger whose history is the run's ``metrics.jsonl``, line by line.

    The step of W&B is the number of the line. A job that is started again offline writes one
    fresh folder with the whole history; online it sends the lines that the server does not have.
    """

    def __init__(
        self,
        context: RunContext,
        project: str,
        entity: str | None,
        mode: str,
        system_metrics: bool | None,
        examples: int,
        upload_adapters: bool,
    ) -> None:
        super().__init__(project=project, save_dir=str(context.run_dir), id=context.run_id)
        self._experiment: Any = None
        self.context = context
        self._mode = mode
        self._target = (project, entity, system_metrics)
        self._examples = examples
        self._uploads = Uploads(upload_adapters, context.log_examples)
        self._reader = HistoryReader(RunDir(context.run_dir).history)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None:
            self._experiment = open_run(self.context, choose_mode(self._mode), *self._target)
            self._reader.number = self._experiment.step  # lines the server has already
            self._experiment.define_metric(STEP)
            self._experiment.define_metric("*", step_metric=STEP, step_sync=True)
            # The weights that stand for a run are those with the lowest validation loss.
            self._experiment.define_metric("val_loss", STEP, step_sync=True, summary="min")
        return self._experiment

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The resolved configuration is the run's config already."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        run = self.experiment
        for number, line in self._reader.new_lines():
            at = {} if line.step is None else {STEP: line.step}
            run.log({**line.values, **at}, step=max(number, run.step))

    @rank_zero_only
    def finish(self, outcome: Outcome | None, error: bool) -> None:
        if self._experiment is None and outcome is None:
            return
        try:
            self.log_metrics({})
            if outcome is not None:
                self._log_outcome(outcome)
        finally:
            self.experiment.finish(exit_code=1 if error else 0)
            self._experiment = None

    def _log_outcome(self, outcome: Outcome) -> None:
        run, folder = self.experiment, self.context.run_dir
        run.config.update(size_config(outcome), allow_val_change=True)
        run.summary.update(summary_values(outcome, folder))
        wandb = import_wandb()
        tables = shown_tables(outcome, folder, self.context.log_examples, self._examples)
        shown = {
            name: wandb.Table(columns=columns, data=rows)
            for name, (columns, rows) in tables.items()
        }
        if shown:  # a run that only trains has no answers
            run.log(shown)
        log_artifacts(run, self.context, outcome, self._uploads)


STEP = "trainer/global_step"
