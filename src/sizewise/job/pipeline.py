"""The steps of one job in order, each resumable by what it leaves on disk."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sizewise.config import RunConfig
from sizewise.data.example import SplitName
from sizewise.data.splits.frequency import count_labels
from sizewise.energy import EnergyMeter, gpu_uuids
from sizewise.evaluation.score import EvaluationResult
from sizewise.evaluation.text import pad_id
from sizewise.job import outcome
from sizewise.job.bases import check_adapter, give_back, load_evaluated, storage_of, take_base
from sizewise.job.data import (
    DATA,
    Task,
    answer_room,
    check_objective,
    load_task,
    make_template,
    save_data,
)
from sizewise.job.fitting import train
from sizewise.job.outcome import make_outcome
from sizewise.job.preflight import answered_splits, check_candidates, check_references, check_room
from sizewise.job.scoring import Scorer
from sizewise.metrics.base import ExampleMetric
from sizewise.models.architecture import context_length
from sizewise.models.likelihood import answer_log_probs
from sizewise.models.size import model_sizes
from sizewise.models.tokenizer import load_tokenizer
from sizewise.record.directories import RunDir
from sizewise.record.fit import FitResult
from sizewise.record.outcome import Outcome

if TYPE_CHECKING:
    import torch
    from pytorch_lightning.loggers import Logger

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pipeline:
    """A job whose data is ready and whose model is still to be loaded.

    Attributes:
        cfg: the job.
        run_dir: its directory.
        identity: hash of its configuration.
        device: where the model goes.
        template: how prompts are written.
        tasks: the data set of the run first, then every further test set.
        scorer: evaluates models on the tasks.
        warnings: what a reader of the scores has to know.
    """

    cfg: RunConfig
    run_dir: Path
    identity: str
    device: torch.device
    template: Any
    tasks: tuple[Task, ...]
    scorer: Scorer
    warnings: tuple[str, ...] = ()

    @classmethod
    def prepare(
        cls,
        cfg: RunConfig,
        run_dir: Path,
        identity: str,
        metrics: Sequence[ExampleMetric],
        device: torch.device,
    ) -> Pipeline:
        """Load the tokenizer, read, split and encode all data; no weight is touched."""
        warnings = check_adapter(cfg)
        template = make_template(load_tokenizer(cfg.model), cfg.model)
        positions = context_length(cfg.model)
        cache = Path(cfg.paths.cache)
        dry_run = cfg.dry_run
        room = answer_room(cfg)
        tasks = [load_task(cfg.dataset, template, positions, cache, dry_run=dry_run, reserve=room)]
        check_objective(cfg, tasks[0])
        labels = count_labels(tasks[0].splits.train)
        for dataset in cfg.eval_dataset.values():
            names: tuple[SplitName, ...] = ("test",)
            tasks.append(
                load_task(dataset, template, positions, cache, names, labels, dry_run, room)
            )
        check_candidates(cfg, metrics)
        check_references(cfg, tasks, metrics)
        check_room(cfg, tasks, positions)
        if cfg.save_data:
            save_data(tasks[0], template, run_dir / DATA)
        scorer = Scorer(cfg, run_dir, template, metrics, tasks[0])
        for _, _, task in answered_splits(cfg, tasks):
            scorer.candidates(task)
        return cls(cfg, run_dir, identity, device, template, tuple(tasks), scorer, warnings)

    @property
    def task(self) -> Task:
        """The data set of the run."""
        return self.tasks[0]

    def run(self, loggers: Sequence[Logger]) -> Outcome:
        """Score the base, train, score the result; return the record."""
        cfg, whole = self.cfg, not self._went_before()
        meter = EnergyMeter(gpu_uuids(self.device, cfg.trainer.devices))
        base = take_base(*storage_of(cfg), self.device)
        meter.start()
        base_results = self._score_base(base)
        if self._specialises:
            meter.start()  # the base's answers are every run's, and not what this one cost
        else:
            whole = whole and not any(result.reused for result in base_results.values())
        model, fit = self._specialise(base, loggers)
        tuned_results = self._score_tuned(model, base_results) if self._specialises else None
        joules = meter.stop() if whole else None
        validation = self._validation(model, fit)
        outcome = self._outcome(model, fit, base_results, tuned_results, validation, joules)
        give_back(model, *storage_of(cfg), self.device)
        return outcome

    def _went_before(self) -> bool:
        """Whether some of what this run costs was, or is, spent by another process."""
        own = "tuned" if self._specialises else "base"
        left = [RunDir(self.run_dir).checkpoints, RunDir(self.run_dir).fit]
        left += RunDir(self.run_dir).all_predictions.glob(f"{own}.*")
        return self.cfg.trainer.num_nodes > 1 or any(path.exists() for path in left)

    def train_as_further_process(self) -> None:
        """Take part in distributed training as one of its further processes."""
        base = take_base(*storage_of(self.cfg), self.device, reuse=False)
        train(self.cfg, base, self.task, self.template, (), self.run_dir)

    def _score_base(self, base: Any) -> dict[str, EvaluationResult]:
        wanted = self.cfg.evaluation.zero_shot or not self._specialises
        if self.cfg.stage == "train" or not wanted:
            return {}
        return {task.name: self.scorer.base(base, task) for task in self._tested}

    def _specialise(self, base: Any, loggers: Sequence[Logger]) -> tuple[Any, FitResult | None]:
        cfg = self.cfg
        if cfg.adapter is not None and cfg.stage == "evaluate":
            return load_evaluated(base, cfg), None
        if not cfg.lora.trains or cfg.stage == "evaluate":
            return base, None
        return train(cfg, base, self.task, self.template, loggers, self.run_dir)

    @property
    def _tested(self) -> list[Task]:
        splits = answered_splits(self.cfg, self.tasks)
        return [task for _, name, task in splits if name == "test"]

    @property
    def _specialises(self) -> bool:
        if self.cfg.stage == "evaluate":
            return self.cfg.adapter is not None
        return self.cfg.lora.trains

    def _score_tuned(
        self, model: Any, base: Mapping[str, EvaluationResult]
    ) -> dict[str, EvaluationResult]:
        if self.cfg.stage == "train":
            return {}
        return {
            task.name: self.scorer.tuned(model, task, self.identity, base.get(task.name))
            for task in self._tested
        }

    def _validation(self, model: Any, fit: FitResult | None) -> dict[str, float]:
        """Return the validation figures, none without that split; the test split gives none."""
        if not self.task.encoded["validation"].encoded:
            return {}
        values = {"val_loss": self._validation_loss(model, fit)}
        if self.cfg.evaluation.objective == "primary":
            result = self.scorer.validation(model, self.task, self.identity)
            values |= result.scores
        return values

    def _validation_loss(self, model: Any, fit: FitResult | None) -> float:
        if fit is not None and fit.best_val_loss is not None:
            return fit.best_val_loss
        encoded = self.task.encoded["validation"].encoded
        size = self.cfg.evaluation.batch_size or self.cfg.trainer.batch_size
        log_probs = answer_log_probs(model, encoded, size, pad_id(self.template))
        return -sum(log_probs) / sum(len(item.answer_ids) for item in encoded)

    def _outcome(
        self,
        model: Any,
        fit: FitResult | None,
        base: Mapping[str, EvaluationResult],
        tuned: Mapping[str, EvaluationResult] | None,
        validation: Mapping[str, float],
        joules: float | None,
    ) -> Outcome:
        return make_outcome(
            self.cfg,
            self.run_dir,
            self.identity,
            self.tasks,
            outcome.model_facts(self.cfg, model, model_sizes(model), self.template),
            outcome.cost_facts(fit, list((tuned or base).values()), joules),
            base,
            tuned,
            validation,
            self.warnings,
        )
