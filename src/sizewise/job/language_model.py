"""A language model, which is trained here and answers here or behind a local server."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from sizewise.config import RunConfig
from sizewise.config.data import SplitName
from sizewise.config.evaluation import GenerationConfig
from sizewise.data.tokens.template import Template
from sizewise.devices import conditions, unmeasured, wait_for_memory
from sizewise.evaluation.candidate_set import (
    CandidateSet,
    calibrated,
    encode_candidates,
)
from sizewise.evaluation.candidates import Scored
from sizewise.evaluation.predict import Answers, Predicted, evaluation_bar, predict
from sizewise.evaluation.score import EvaluationResult
from sizewise.evaluation.text import pad_id
from sizewise.evaluation.timing import Side, time_sides
from sizewise.evaluation.zero_shot import cached, changed_conditions, zero_shot_key, zero_shot_parts
from sizewise.job.answerer import Answerer
from sizewise.job.bases import (
    check_adapter,
    evaluation_cost,
    give_back,
    let_go,
    load_evaluated,
    model_facts,
    storage_of,
    take_base,
    with_fit,
)
from sizewise.job.data import PreparedJob, Task, load_encoded_tasks, save_data
from sizewise.job.fitting import UntrainedLoss, train, train_divided
from sizewise.job.served import answer_served, check_served, close_engine
from sizewise.models.adapter.attach import cast_adapter, load_adapter
from sizewise.models.adapter.full import is_full
from sizewise.models.adapter.merged import merged
from sizewise.models.adapter.wrapping import base_only
from sizewise.models.architecture import context_length
from sizewise.models.dtypes import resolve_precision
from sizewise.models.likelihood import answer_log_probs
from sizewise.models.preflight import check_model
from sizewise.models.sources import find_source, weights_fingerprint
from sizewise.models.tokenizer import load_template
from sizewise.record.directories import RunDir
from sizewise.record.fit import FitResult
from sizewise.record.outcome import CostFacts, ModelFacts
from sizewise.record.predictions import PredictionStore
from sizewise.record.stops import FitStopped
from sizewise.record.timing import Timing
from sizewise.training.preflight import check_training

if TYPE_CHECKING:
    from peft import PeftModel
    from pytorch_lightning.loggers import Logger
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
Calibration = tuple[tuple[float, ...], Mapping[tuple[int, ...], Scored]]
"""The prior of some candidates, and what was read for it."""


@dataclass(frozen=True)
class LanguageModel(Answerer):
    """A causal or encoder-decoder model on this machine, untouched or specialised."""

    model: PreTrainedModel | PeftModel
    template: Template
    untouched: bool = True
    fit: FitResult | None = None
    calibrations: dict[tuple[str, ...], Calibration] = field(default_factory=dict)
    has_likelihoods: ClassVar[bool] = True
    uses_energy: ClassVar[bool] = True

    @staticmethod
    def check(cfg: RunConfig) -> tuple[str, ...]:
        """Refuse a base, storage or adapter that cannot work here."""
        check_model(cfg.model, cfg.quantization, cfg.lora, cfg.trainer)
        check_training(cfg)
        return check_adapter(cfg)

    @staticmethod
    def read_data(cfg: RunConfig, run_dir: Path) -> tuple[Template | None, list[Task]]:
        """Split all data and encode it with the model's own template."""
        template = load_template(cfg.model)
        tasks = load_encoded_tasks(cfg, template, context_length(cfg.model))
        if cfg.save_data:
            save_data(tasks[0], template, RunDir(run_dir).data)
        return template, tasks

    @classmethod
    def load(cls, job: PreparedJob) -> LanguageModel:
        """Load the frozen base, or take the one that the last job left."""
        assert job.template is not None
        return cls(take_base(*storage_of(job.cfg), job.device), job.template)

    def answer(self, job: PreparedJob, task: Task, split: SplitName, kind: str) -> Answers:
        """Answer a split; the untouched base's answers are shared between runs."""
        parts = dict(self._parts(job, task, split))
        if not self.untouched:
            store = job.store(kind, task, zero_shot_key({**parts, "run": job.identity}))
            return Answers(self._predict(job, task, split, store), store)
        store = job.store(kind, task, zero_shot_key(parts))
        predicted, reused = cached(
            Path(job.cfg.paths.cache),
            parts,
            lambda: self._predict(job, task, split, store),
            [example.id for example in task.examples(split)],
        )
        if predicted.prior:
            texts = job.candidates(task, split, self.untouched)
            self.calibrations.setdefault(texts, (predicted.prior, {}))
        if not reused:
            return Answers(predicted, store)
        log.info("%s: zero-shot answers of %s reused.", task.name, job.cfg.model.name)
        here = conditions(self.model.device, job.eval_batch_size)
        warning = changed_conditions(
            task.name, predicted.conditions, here, job.cfg.quantization.method
        )
        return Answers(predicted, store, True, (warning,) if warning else ())

    def specialise(self, job: PreparedJob, loggers: Sequence[Logger]) -> LanguageModel:
        """Train the adapter, or load the one that is to be evaluated."""
        cfg = job.cfg
        if not job.specialises:
            return self
        if cfg.stage == "evaluate":
            return self._specialised(load_evaluated(self.model, cfg))
        padding = pad_id(self.template)
        if cfg.trainer.shards:
            return self._trained_divided(job, padding, loggers)
        try:
            model, fitted = train(
                cfg, self.model, job.task, padding, loggers, job.run_dir, self._untrained_loss(job)
            )
        except FitStopped:
            self.give_back(job)
            raise
        return self._specialised(model, fitted)

    def _specialised(
        self, model: PreTrainedModel | PeftModel, fitted: FitResult | None = None
    ) -> LanguageModel:
        return dataclasses.replace(self, model=model, untouched=False, fit=fitted, calibrations={})

    def _trained_divided(
        self, job: PreparedJob, padding: int, loggers: Sequence[Logger]
    ) -> LanguageModel:
        """Make room, train with the other processes, and load the whole base again to answer."""
        let_go(self.model)
        fitted = train_divided(job.cfg, job.task, padding, loggers, job.run_dir)
        if job.cfg.model.device_map is not None:  # their cards have to hold parts of the base
            wait_for_memory(job.cfg.trainer.devices)
        base = take_base(*storage_of(job.cfg), job.device)
        model = load_adapter(base, RunDir(job.run_dir).adapter)
        cast_adapter(model, job.cfg.trainer)
        return self._specialised(model, fitted)

    def validation_loss(self, job: PreparedJob) -> dict[str, float]:
        """Return nats per answer token; of a trained model the loss of its best weights."""
        encoded = job.task.encoded["validation"].encoded
        if not encoded:
            return {}
        if self.fit is not None and self.fit.best_val_loss is not None:
            return {"val_loss": self.fit.best_val_loss}
        log_probs = answer_log_probs(
            self.model, encoded, job.eval_batch_size, pad_id(self.template)
        )
        return {"val_loss": -sum(log_probs) / sum(len(item.answer_ids) for item in encoded)}

    def time_answers(self, job: PreparedJob) -> list[Timing]:
        """Time a sample; a fully trained model has no untouched one beside it."""
        count, model = job.cfg.evaluation.timed_answers, self.model
        split = job.task.encoded["test"]
        if not count or not split.examples or job.cfg.stage == "train":
            return []
        sides: dict[str, Side] = {}
        if self.untouched or (job.cfg.evaluation.zero_shot and not is_full(model)):
            sides["base"] = lambda: base_only(model)
        leaner: dict[str, Side] = {}
        if not self.untouched and is_full(model):
            sides["tuned"] = nullcontext
        elif not self.untouched:
            sides["tuned"] = lambda: merged(model, exact=False)
            leaner["tuned"] = lambda: merged(model)
        size, template, generation = job.eval_batch_size, self.template, job.cfg.generation
        with unmeasured():
            return time_sides(model, sides, split, template, generation, count, size, leaner)

    def facts(self, job: PreparedJob) -> ModelFacts:
        """Describe the model; its adapter as the weights that were scored have it."""
        template = self.template
        kwargs = dict(getattr(template, "template_kwargs", {}))
        return model_facts(job.cfg, self.model, template.fingerprint, kwargs)

    def cost(self, evaluations: Sequence[EvaluationResult], joules: float | None) -> CostFacts:
        """Sum up what the fit and the evaluations cost."""
        return with_fit(evaluation_cost(evaluations, joules), self.fit)

    def give_back(self, job: PreparedJob) -> None:
        """Keep the base in memory for the next job of this process."""
        give_back(self.model, *storage_of(job.cfg), job.device)

    def untouched_key(self, job: PreparedJob, task: Task, split: SplitName) -> str:
        """Name the untouched model's answers to a split in the cache."""
        return zero_shot_key(self._parts(job, task, split))

    def _predict(
        self, job: PreparedJob, task: Task, split: SplitName, store: PredictionStore
    ) -> Predicted:
        evaluation = job.cfg.evaluation
        with evaluation_bar(store.path.stem, job.cfg.trainer.progress_bar) as progress:
            return predict(
                self.model,
                task.encoded[split],
                self.template,
                job.cfg.generation,
                store,
                job.eval_batch_size,
                evaluation.warmup_batches,
                evaluation.retries,
                metrics=job.metrics_on(split),
                candidates=self._candidates(job, task, split),
                progress=progress,
                timed=evaluation.timed_answers > 0
                and (split == "test" or evaluation.objective == "primary"),
            )

    def _candidates(self, job: PreparedJob, task: Task, split: SplitName) -> CandidateSet | None:
        """Encode the candidates; the run's own validation prompts calibrate them."""
        texts = job.candidates(task, split, self.untouched)
        asked = job.task.encoded["validation"].encoded
        if not texts:
            return None
        found = encode_candidates(texts, self.template, task.examples(split)[0].messages)
        if not asked:
            return found
        if texts not in self.calibrations:
            prompts, size = [item.prompt_ids for item in asked], job.eval_batch_size
            padding, stops = pad_id(self.template), self.template.stop_ids
            made = calibrated(self.model, found, prompts, size, padding, stops)
            self.calibrations[texts] = (made.prior or (), made.read)
        prior, read = self.calibrations[texts]
        return dataclasses.replace(found, prior=prior, read=read)

    def _parts(self, job: PreparedJob, task: Task, split: SplitName) -> Mapping[str, Any]:
        return zero_shot_parts(
            job.cfg.model,
            job.cfg.quantization,
            job.cfg.generation,
            self._weights(job.cfg),
            str(self.model.dtype),
            self.model.device.type,
            self.template,
            task.encoded[split],
            job.metrics_on(split),
            job.candidates(task, split, self.untouched),
            job.task.encoded["validation"] if job.task.examples("validation") else None,
        )

    def _untrained_loss(self, job: PreparedJob) -> UntrainedLoss:
        """Name the loss before the first step: the base's, for an adapter begins with nothing.

        It depends on neither rank, rate nor seed; ``precision`` and batch decide how it rounds.
        """
        cfg, task = job.cfg, job.task
        split = (task.held_back or task.encoded["validation"]).answered
        parts = zero_shot_parts(
            cfg.model, cfg.quantization, GenerationConfig(), self._weights(cfg),
            str(self.model.dtype), self.model.device.type, self.template, split,
        )  # fmt: skip
        precision = resolve_precision(cfg.trainer, self.model.device)
        how = [cfg.lora.method, cfg.lora.fast, cfg.lora.modules_to_save, storage_of(cfg)[0].dtype]
        rounding = [
            *how, precision, cfg.trainer.deterministic, job.eval_batch_size,
            torch.get_num_threads(),
        ]  # fmt: skip
        key = zero_shot_key({**parts, "untrained": rounding})
        return UntrainedLoss.of(Path(cfg.paths.cache), key)

    def _weights(self, cfg: RunConfig) -> str:
        """Name the base's weights: by content where they lie here, else by hub id and commit."""
        if cfg.model.init != "pretrained":
            return json.dumps([cfg.model.init, asdict(cfg.model)], default=str)
        source = find_source(cfg.model.path, cfg.model.revision)
        commit = getattr(self.model.config, "_commit_hash", None)
        return weights_fingerprint(source.place, source.revision, commit)


@dataclass(frozen=True)
class ServedModel(LanguageModel):
    """A language model that is loaded and trained here, and whose answers a local server gives."""

    has_likelihoods: ClassVar[bool] = False

    @staticmethod
    def check(cfg: RunConfig) -> tuple[str, ...]:
        """Refuse what a server cannot answer as transformers would."""
        check_served(cfg)
        return LanguageModel.check(cfg)

    def specialise(self, job: PreparedJob, loggers: Sequence[Logger]) -> LanguageModel:
        """Train or load the adapter; a server that was started for the base ends before."""
        if job.specialises:
            close_engine()
        return super().specialise(job, loggers)

    def time_answers(self, job: PreparedJob) -> list[Timing]:
        """There are none: the server's answers were timed as they were made."""
        return []

    def give_back(self, job: PreparedJob) -> None:
        """Keep the base in memory, and end the server."""
        close_engine()
        super().give_back(job)

    def _predict(
        self, job: PreparedJob, task: Task, split: SplitName, store: PredictionStore
    ) -> Predicted:
        return answer_served(self.model, self.template, self.untouched, job, task, split, store)

    def _parts(self, job: PreparedJob, task: Task, split: SplitName) -> Mapping[str, Any]:
        return {**super()._parts(job, task, split), "engine": "server"}
