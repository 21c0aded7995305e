"""A baseline without a language model as a run of its own, in the same sweep and table."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sizewise.config import RunConfig
from sizewise.data.example import Example
from sizewise.data.splits.frequency import count_labels
from sizewise.data.tokens.encode import Encoded, EncodedSplit
from sizewise.errors import ConfigError
from sizewise.evaluation.baselines import Fitted, answer_all, fit
from sizewise.evaluation.predict import Predicted
from sizewise.evaluation.score import EvaluationResult, score_predicted
from sizewise.job.data import Task, check_objective, load_splits
from sizewise.job.outcome import make_outcome
from sizewise.job.preflight import answered_splits, check_references
from sizewise.metrics.base import ExampleMetric
from sizewise.record.directories import RunDir
from sizewise.record.outcome import CostFacts, ModelFacts, Outcome
from sizewise.record.predictions import PredictionStore

if TYPE_CHECKING:
    import torch
    from pytorch_lightning.loggers import Logger

FAMILY = "classical"
PREFIX = "classical:"
NEEDS_LIKELIHOOD = ("perplexity", "preference", "forgetting")


def check_classical(cfg: RunConfig) -> None:
    """Refuse what makes no sense without a language model.

    Raises:
        ConfigError: an adapter, quantisation, demonstrations, a stage, or a primary score that
            needs likelihoods.
    """
    refused = {
        f"lora={cfg.lora.method}": cfg.lora.trains,
        f"quantization={cfg.quantization.method}": cfg.quantization.method != "none",
        f"dataset.few_shot={cfg.dataset.few_shot}": cfg.dataset.few_shot > 0,
        f"stage={cfg.stage}": cfg.stage == "train",
    }
    wrong = [key for key, found in refused.items() if found]
    if wrong:
        raise ConfigError(
            f"model={cfg.model.name} is no language model and takes no {', '.join(wrong)}. "
            "Choose lora=none quantization=none dataset.few_shot=0 with it."
        )
    primary = cfg.dataset.primary.partition("/")[0]
    if primary in NEEDS_LIKELIHOOD:
        raise ConfigError(
            f"dataset.primary={cfg.dataset.primary} needs likelihoods, which model="
            f"{cfg.model.name} does not give. Choose a data set whose answers are classes."
        )


@dataclass(frozen=True)
class ClassicalPipeline:
    """The same steps as ``Pipeline``: data, fit on the training split, scores, record."""

    cfg: RunConfig
    run_dir: Path
    identity: str
    metrics: tuple[ExampleMetric, ...]
    tasks: tuple[Task, ...]

    @classmethod
    def prepare(
        cls,
        cfg: RunConfig,
        run_dir: Path,
        identity: str,
        metrics: Sequence[ExampleMetric],
        device: torch.device,
    ) -> ClassicalPipeline:
        """Read and split all data."""
        first = load_splits(cfg.dataset, None, cfg.dry_run)
        labels = count_labels(first.train)
        tasks = [Task(cfg.dataset, first, _unencoded(first))]
        check_objective(cfg, tasks[0])
        for dataset in cfg.eval_dataset.values():
            splits = load_splits(dataset, labels, cfg.dry_run)
            tasks.append(Task(dataset, splits, _unencoded(splits)))
        usable = tuple(metric for metric in metrics if metric.name not in NEEDS_LIKELIHOOD)
        check_references(cfg, tasks, usable)
        return cls(cfg, run_dir, identity, usable, tuple(tasks))

    def run(self, loggers: Sequence[Logger]) -> Outcome:
        """Fit, answer every test split, score; return the record."""
        started = time.perf_counter()
        name = self.cfg.model.path.removeprefix(PREFIX)
        fitted = fit(name, self.tasks[0].splits.train)
        seconds = time.perf_counter() - started
        tested = [task for _, name, task in answered_splits(self.cfg, self.tasks) if name == "test"]
        results = {task.name: self._score(fitted, task, "test") for task in tested}
        return self._outcome(fitted, seconds, results)

    def train_as_further_process(self) -> None:
        """Do nothing: there is nothing to distribute."""

    def _score(self, fitted: Fitted, task: Task, split: Any) -> EvaluationResult:
        examples = task.encoded[split].examples
        predictions, seconds = answer_all(fitted, examples)
        chosen = tuple(
            dataclasses.replace(
                p, candidate=p.text, candidate_probability=math.exp(p.token_log_prob or 0.0)
            )
            for p in predictions
        )
        predicted = Predicted(chosen, seconds, None, max(len(examples), 1))
        kind = "base" if split == "test" else split
        path = RunDir(self.run_dir).predictions(kind, task.name)
        store = PredictionStore(path, self._key(task, split))
        train = self.tasks[0].splits.train
        return score_predicted(predicted, task.encoded[split], self.metrics, store, train)

    def _key(self, task: Task, split: Any) -> str:
        parts = [self.identity, task.splits.fingerprint(split), task.name]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def _validation(self, fitted: Fitted) -> Mapping[str, float]:
        if self.cfg.evaluation.objective != "primary":
            return {}
        return self._score(fitted, self.tasks[0], "validation").scores

    def _outcome(
        self, fitted: Fitted, seconds: float, results: Mapping[str, EvaluationResult]
    ) -> Outcome:
        answering = sum(result.seconds or 0.0 for result in results.values())
        return make_outcome(
            self.cfg,
            self.run_dir,
            self.identity,
            self.tasks,
            model_facts(self.cfg, fitted),
            CostFacts(train_seconds=seconds, eval_seconds=answering),
            results,
            None,
            self._validation(fitted),
        )


def model_facts(cfg: RunConfig, fitted: Fitted) -> ModelFacts:
    """Describe a fitted baseline: its coefficients are its parameters."""
    return ModelFacts(
        name=cfg.model.name,
        path=cfg.model.path,
        revision=None,
        family=FAMILY,
        model_type=cfg.model.path.removeprefix(PREFIX),
        params_total=fitted.parameters,
        params_trainable=fitted.parameters,
        params_base=fitted.parameters,
        base_bytes=fitted.bytes,
        memory_bytes=fitted.bytes,
        adapter_bytes=0,
        dtype="float64",
        quantization="none",
        lora_method="none",
        lora_r=None,
        lora_alpha=None,
        lora_scale=None,
        chat_template="",
    )


def _unencoded(splits: Any) -> dict[Any, EncodedSplit]:
    """Splits in the form that scoring takes; words are the features, so there are no tokens."""
    return {name: _split(getattr(splits, name)) for name in ("train", "validation", "test")}


def _split(examples: Sequence[Example]) -> EncodedSplit:
    return EncodedSplit(tuple(Encoded([], []) for _ in examples), tuple(examples))
