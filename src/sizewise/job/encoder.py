"""A fine-tuned encoder as an answerer: a head over the training answers, trained by the same fit.

It is what a small language model has to beat where answers are classes (arXiv 2504.21191,
2602.06370). It can only give answers that its training split has.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from sizewise.config import RunConfig
from sizewise.config.data import SPLITS, SplitName
from sizewise.data.tokens.classes import classes_of, encode_texts
from sizewise.data.tokens.reasoning import answer_of
from sizewise.errors import ConfigError
from sizewise.evaluation.candidate_set import as_candidate
from sizewise.evaluation.classify import Classifier, mean_nll
from sizewise.evaluation.predict import Answers, evaluation_bar, measured
from sizewise.evaluation.score import EvaluationResult
from sizewise.files import hash_text
from sizewise.job.answerer import Answerer
from sizewise.job.bases import (
    check_adapter,
    evaluation_cost,
    load_evaluated,
    model_facts,
    storage_of,
    with_fit,
)
from sizewise.job.data import PreparedJob, Task, load_plain_tasks, say_encoded
from sizewise.job.fitting import train
from sizewise.models.encoder import load_encoder, positions, read_classes, write_classes
from sizewise.models.preflight import check_model
from sizewise.models.tokenizer import load_tokenizer
from sizewise.record.directories import RunDir
from sizewise.record.fit import FitResult
from sizewise.record.outcome import CostFacts, ModelFacts
from sizewise.runtime import is_ddp_child
from sizewise.training.preflight import check_training

if TYPE_CHECKING:
    from peft import PeftModel
    from pytorch_lightning.loggers import Logger
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoder(Answerer):
    """A base with a head over classes; untouched, its head is drawn at random and says nothing.

    Attributes:
        classes: the answer that each row of the head stands for.
        padding: the id to pad with.
        fit: the record of the training; None before it, or where an adapter was loaded.
    """

    model: PreTrainedModel | PeftModel
    classes: tuple[str, ...]
    padding: int
    fit: FitResult | None = None
    uses_energy: ClassVar[bool] = True
    answers_untouched: ClassVar[bool] = False

    @staticmethod
    def check(cfg: RunConfig) -> tuple[str, ...]:
        """Refuse what makes no sense with a head over classes, and a base that cannot work here.

        Raises:
            ConfigError: no training, quantisation or demonstrations.
        """
        name = f"model={cfg.model.name} (model.family=encoder)"
        if cfg.adapter is None and not cfg.lora.trains:
            raise ConfigError(
                f"{name} with lora=none: an untouched encoder has no head that could answer. "
                "Choose lora=full, lora=all_linear or lora=attention."
            )
        if cfg.quantization.method != "none":
            raise ConfigError(
                f"{name} with quantization={cfg.quantization.method}: encoders are trained "
                "unquantised, they are small. Choose quantization=none."
            )
        if cfg.dataset.few_shot:
            raise ConfigError(
                f"{name} with dataset.few_shot={cfg.dataset.few_shot}: an encoder learns from the "
                "training split and reads no demonstrations. Choose dataset.few_shot=0."
            )
        check_model(cfg.model, cfg.quantization, cfg.lora, cfg.trainer)
        check_training(cfg)
        classes = () if cfg.adapter is None else read_classes(Path(cfg.adapter).expanduser())
        return check_adapter(cfg, classes)

    @staticmethod
    def read_data(cfg: RunConfig, run_dir: Path) -> tuple[None, list[Task]]:
        """Split all data and encode it with the encoder's own tokenizer; there is no template."""
        first, *further = load_plain_tasks(cfg)
        classes = _classes(cfg, first)
        tasks = [_encoded(cfg, first, classes, SPLITS)]
        tasks += [_encoded(cfg, task, classes, ("test",)) for task in further]
        for task in tasks:
            say_encoded(task)
            _say_unknown(task, classes)
        return None, tasks

    @classmethod
    def load(cls, job: PreparedJob) -> Encoder:
        """Load the base under a head that is drawn from the job's seed."""
        classes = _classes(job.cfg, job.task)
        model = load_encoder(storage_of(job.cfg)[0], classes, job.device, job.cfg.seed)
        padding = load_tokenizer(job.cfg.model).pad_token_id
        return cls(model, classes, int(padding or 0))

    def answer(self, job: PreparedJob, task: Task, split: SplitName, kind: str) -> Answers:
        """Answer a split with the most probable class of each example, in every reading."""
        parts = [job.identity, task.splits.fingerprint(split), task.name, split]
        store = job.store(kind, task, hash_text(json.dumps(parts), 32))
        classifier = Classifier(self.model, self.classes, self.padding)
        evaluation = job.cfg.evaluation
        with evaluation_bar(store.path.stem, job.cfg.trainer.progress_bar) as progress:
            predicted = measured(
                classifier, task.encoded[split], store, job.device, job.eval_batch_size, classifier,
                evaluation.warmup_batches, evaluation.retries, progress,
            )  # fmt: skip
        calibrated = bool(job.task.examples("validation"))
        rows = tuple(as_candidate(p, calibrated) for p in predicted.predictions)
        return Answers(dataclasses.replace(predicted, predictions=rows), store)

    def specialise(self, job: PreparedJob, loggers: Sequence[Logger]) -> Encoder:
        """Train head and body (or an adapter in it), or load what is to be evaluated."""
        cfg = job.cfg
        if cfg.stage == "evaluate":
            return dataclasses.replace(self, model=load_evaluated(self.model, cfg))
        model, fitted = train(cfg, self.model, job.task, self.padding, loggers, job.run_dir)
        if not is_ddp_child():
            write_classes(self.classes, RunDir(job.run_dir).adapter)
        return dataclasses.replace(self, model=model, fit=fitted)

    def validation_loss(self, job: PreparedJob) -> dict[str, float]:
        """Return nats per answer, of those that are classes; empty where there are none."""
        known = job.task.encoded["validation"].answered
        if not len(known):
            return {}
        if self.fit is not None and self.fit.best_val_loss is not None:
            return {"val_loss": self.fit.best_val_loss}
        loss = mean_nll(self.model, known.encoded, job.eval_batch_size, self.padding)
        return {"val_loss": loss}

    def facts(self, job: PreparedJob) -> ModelFacts:
        """Describe the model; its head is counted with it."""
        return model_facts(job.cfg, self.model, "", {})

    def cost(self, evaluations: Sequence[EvaluationResult], joules: float | None) -> CostFacts:
        """Sum up what the fit and the evaluations cost."""
        return with_fit(evaluation_cost(evaluations, joules), self.fit)

    def give_back(self, job: PreparedJob) -> None:
        """Nothing is kept: the head is that of one task."""


def _classes(cfg: RunConfig, task: Task) -> tuple[str, ...]:
    """Return the answers of the head: the adapter's own, else those of the training split."""
    if cfg.adapter is not None:
        return read_classes(Path(cfg.adapter).expanduser())
    return classes_of(task.splits.train, shared=not cfg.dry_run)


def _encoded(
    cfg: RunConfig, task: Task, classes: Sequence[str], names: Sequence[SplitName]
) -> Task:
    tokenizer = load_tokenizer(cfg.model)
    limit = min(positions(cfg.model, tokenizer), task.config.max_length)
    encoded = {
        name: encode_texts(getattr(task.splits, name), classes, tokenizer, limit) for name in names
    }
    return dataclasses.replace(task, encoded=encoded)


def _say_unknown(task: Task, classes: Sequence[str]) -> None:
    known = set(classes)
    for name, split in task.encoded.items():
        unknown = sum(answer_of(example.answer) not in known for example in split.examples)
        if unknown:
            log.info(
                "%s: %d of %d %s answers never occur in training, so the encoder cannot give them.",
                task.name, unknown, len(split.examples), name,
            )  # fmt: skip
