"""Scores of one model on the test splits of a job."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sizewise.config import RunConfig
from sizewise.data.tokens.encode import EncodedSplit
from sizewise.devices import conditions
from sizewise.evaluation.candidates import read_candidates
from sizewise.evaluation.predict import Predicted, evaluation_bar, predict
from sizewise.evaluation.score import EvaluationResult, score_predicted
from sizewise.evaluation.zero_shot import (
    cached,
    changed_conditions,
    zero_shot_key,
    zero_shot_parts,
)
from sizewise.job.data import Task
from sizewise.metrics.base import ExampleMetric
from sizewise.models.sources import find_source, weights_fingerprint
from sizewise.record.directories import RunDir
from sizewise.record.predictions import Prediction, PredictionStore

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scorer:
    """Evaluates models of one job.

    Args:
        cfg: the job.
        run_dir: where predictions are written.
        template: how prompts are written and answers end.
        metrics: what is computed from predictions.
        trained_on: the data set of the run; its training answers are what metrics and candidates
            refer to on every test set.
    """

    cfg: RunConfig
    run_dir: Path
    template: Any
    metrics: Sequence[ExampleMetric]
    trained_on: Task

    def base(self, model: Any, task: Task) -> EvaluationResult:
        """Score the untouched base on the test split; predictions are shared between runs."""
        split, parts = task.encoded["test"], self._parts(model, task, "test")
        store = self._store(f"base.{task.name}", zero_shot_key(parts))
        predicted, reused = cached(
            Path(self.cfg.paths.cache), parts, lambda: self._predict(model, split, store, task),
            [example.id for example in split.examples],
        )  # fmt: skip
        result = self._score(predicted, task, "test", store, reused)
        if not reused:
            return result
        log.info("%s: zero-shot answers of %s reused.", task.name, self.cfg.model.name)
        here = conditions(model.device, self._batch_size)
        warning = changed_conditions(task.name, predicted.conditions, here)
        return replace(result, warnings=(warning,) if warning else ())

    def tuned(
        self, model: Any, task: Task, identity: str, base: EvaluationResult | None = None
    ) -> EvaluationResult:
        """Score the tuned model on the test split, beside the base's answers where given."""
        answers = base.predictions if base is not None else ()
        return self._own(model, task, "test", f"tuned.{task.name}", identity, answers)

    def validation(self, model: Any, task: Task, identity: str) -> EvaluationResult:
        """Score the model of this run on the validation split, for its objective."""
        return self._own(model, task, "validation", f"validation.{task.name}", identity)

    def _own(
        self,
        model: Any,
        task: Task,
        split: Any,
        name: str,
        identity: str,
        base: Sequence[Prediction] = (),
    ) -> EvaluationResult:
        parts = {**self._parts(model, task, split), "run": identity}
        store = self._store(name, zero_shot_key(parts))
        predicted = self._predict(model, task.encoded[split], store, task)
        return self._score(predicted, task, split, store, base=base)

    def _store(self, name: str, key: str) -> PredictionStore:
        return PredictionStore(RunDir(self.run_dir).all_predictions / f"{name}.jsonl", key)

    def _predict(
        self, model: Any, split: EncodedSplit, store: PredictionStore, task: Task
    ) -> Predicted:
        evaluation, trainer = self.cfg.evaluation, self.cfg.trainer
        with evaluation_bar(store.path.stem, trainer.progress_bar) as progress:
            return predict(
                model,
                split,
                self.template,
                self.cfg.generation,
                store,
                self._batch_size,
                evaluation.warmup_batches,
                evaluation.retries,
                metrics=self.metrics,
                candidates=self.candidates(task),
                progress=progress,
            )

    @property
    def _batch_size(self) -> int:
        return self.cfg.evaluation.batch_size or self.cfg.trainer.batch_size

    def candidates(self, task: Task) -> tuple[str, ...]:
        """Return the answers whose likelihoods are compared; none where none are configured.

        Raises:
            ConfigError: their file cannot be read, or holds none.
        """
        chosen = self.cfg.evaluation.candidates
        if chosen is None:
            return ()
        trained, tested = self.trained_on.splits, task.splits
        every = (*trained.train, *tested.train, *tested.validation, *tested.test)
        return read_candidates(chosen, trained.train, every)

    def _score(
        self,
        predicted: Predicted,
        task: Task,
        split: Any,
        store: PredictionStore,
        reused: bool = False,
        base: Sequence[Prediction] = (),
    ) -> EvaluationResult:
        examples = self.trained_on.encoded["train"].examples
        return score_predicted(
            predicted, task.encoded[split], self.metrics, store, examples, reused, base
        )

    def _parts(self, model: Any, task: Task, split: Any) -> Mapping[str, Any]:
        cfg, encoded = self.cfg, task.encoded[split]
        return zero_shot_parts(
            cfg.model,
            cfg.quantization,
            cfg.generation,
            base_fingerprint(cfg, model),
            str(model.dtype),
            model.device.type,
            self.template,
            encoded,
            self.metrics,
            self.candidates(task),
        )


def base_fingerprint(cfg: RunConfig, model: Any) -> str:
    """Identify the base's weights: by content where they lie here, else by hub id and commit."""
    if cfg.model.init != "pretrained":
        return json.dumps([cfg.model.init, asdict(cfg.model)], default=str)
    source = find_source(cfg.model.path, cfg.model.revision)
    commit = getattr(model.config, "_commit_hash", None)
    return weights_fingerprint(source.path, source.revision, commit)
