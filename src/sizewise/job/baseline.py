"""A baseline without a language model: words and their weights, or the commonest answer."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sizewise.config import RunConfig
from sizewise.config.data import SplitName
from sizewise.config.model import CLASSICAL
from sizewise.errors import ConfigError
from sizewise.evaluation.baselines import Fitted, answer_all, check_baseline, fit
from sizewise.evaluation.candidate_set import as_candidate
from sizewise.evaluation.predict import Answers, Predicted
from sizewise.evaluation.score import EvaluationResult
from sizewise.files import hash_text
from sizewise.job.answerer import Answerer
from sizewise.job.bases import evaluation_cost
from sizewise.job.data import PreparedJob, Task, load_plain_tasks
from sizewise.record.outcome import CostFacts, ModelFacts

PREFIX = "classical:"


@dataclass(frozen=True)
class Baseline(Answerer):
    """A model of words, fitted on the training split while it is loaded. There are no tokens."""

    fitted: Fitted
    seconds: float = field(default=0.0)

    @staticmethod
    def check(cfg: RunConfig) -> tuple[str, ...]:
        """Refuse what makes no sense without a language model.

        Raises:
            ConfigError: an adapter, quantisation, demonstrations or a stage.
        """
        check_baseline(cfg.model.path.removeprefix(PREFIX))
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
        return ()

    @staticmethod
    def read_data(cfg: RunConfig, run_dir: Path) -> tuple[None, list[Task]]:
        """Split all data."""
        return None, load_plain_tasks(cfg)

    @classmethod
    def load(cls, job: PreparedJob) -> Baseline:
        """Fit the baseline on the training split of the run."""
        started = time.perf_counter()
        primary = job.cfg.dataset.primary
        counts_as = next((m.counts_as for m in job.metrics if m.gives(primary)), str)
        name, train = job.cfg.model.path.removeprefix(PREFIX), job.task.splits.train
        fitted = fit(name, train, counts_as=counts_as)
        return cls(fitted, time.perf_counter() - started)

    def answer(self, job: PreparedJob, task: Task, split: SplitName, kind: str) -> Answers:
        """Answer a split at once; the answer is also the candidate, in every reading."""
        examples = task.examples(split)
        predictions, seconds = answer_all(self.fitted, examples)
        calibrated = bool(job.task.examples("validation"))
        chosen = tuple(as_candidate(p, calibrated) for p in predictions)
        parts = [job.identity, task.splits.fingerprint(split), task.name]
        key = hash_text(json.dumps(parts), 32)
        predicted = Predicted(chosen, seconds, None, max(len(examples), 1))
        return Answers(predicted, job.store(kind, task, key))

    def facts(self, job: PreparedJob) -> ModelFacts:
        """Describe the baseline: its coefficients are its parameters."""
        cfg, fitted = job.cfg.model, self.fitted
        kind, params = cfg.path.removeprefix(PREFIX), fitted.parameters
        facts = ModelFacts.without_weights(
            cfg.name, cfg.path, CLASSICAL, kind, params, dtype="float64"
        )
        return dataclasses.replace(
            facts, params_trainable=params, base_bytes=fitted.bytes, memory_bytes=fitted.bytes
        )

    def cost(self, evaluations: Sequence[EvaluationResult], joules: float | None) -> CostFacts:
        """Sum up fitting and answering."""
        return dataclasses.replace(evaluation_cost(evaluations, joules), train_seconds=self.seconds)
