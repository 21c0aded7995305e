"""Questions to a model that is not the job's own, by the same answerers, caches and ledgers."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sizewise.composition.others import Other, other_model, others_of
from sizewise.config import EvaluationConfig, GenerationConfig, LoraConfig, RunConfig
from sizewise.data.example import DataReport, DataSplits, Example, Message
from sizewise.data.tokens.encode import EncodedSplit, encode_examples
from sizewise.data.tokens.template import Template
from sizewise.devices import free_memory
from sizewise.evaluation.candidate_set import cannot_score
from sizewise.evaluation.predict import Predicted
from sizewise.evaluation.zero_shot import cached
from sizewise.files import hash_text
from sizewise.job.answerers import kind_of_answerer
from sizewise.job.data import PreparedJob, Task
from sizewise.models.architecture import context_length
from sizewise.models.sources import folder_fingerprint
from sizewise.models.tokenizer import load_template
from sizewise.record.predictions import Prediction
from sizewise.record.spending import PER_1000

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
LONGEST = 1_000_000  # tokens of a question: the model's own context is the bound
NOTHING = DataReport(0, {}, 0, 0, 0, 0.0)


@dataclass(frozen=True)
class Replies:
    """Answers by the id of the question, and what they cost when they were given.

    A question that the model could not read (too long) has none. ``money`` is None where prices
    are not known, ``seconds`` where the time was not kept.
    """

    rows: Mapping[str, Prediction]
    seconds: float | None
    money: float | None


def ask(
    cfg: RunConfig,
    device: torch.device,
    other: Other,
    questions: Sequence[Example],
    folder: Path,
    generation: GenerationConfig,
    choices: Sequence[str] = (),
) -> Replies:
    """Ask a model what was not asked before; answers are kept as they come.

    Args:
        cfg: the job: devices, batch size and cache are its own.
        device: where a local model goes.
        other: who is asked.
        questions: what is asked; the same question is asked once.
        folder: where answers under way, and what is spent, are kept.
        generation: how answers are written.
        choices: the only answers there are; a local model takes the likeliest of them.
    """
    unique = tuple({question.id: question for question in questions}.values())
    if not unique:
        return Replies({}, 0.0, None)
    asked = config_of(cfg, other, _name(folder, unique, generation), generation, bool(choices))
    job = _job(asked, device, unique, folder, choices)
    predicted = _kept(job, other, choices)
    known = [row.scores[PER_1000] for row in predicted.predictions if PER_1000 in row.scores]
    money = sum(known) / 1000 if known else None
    return Replies({row.id: row for row in predicted.predictions}, predicted.seconds, money)


def _name(folder: Path, questions: Sequence[Example], generation: GenerationConfig) -> str:
    """Name a set of questions, and how it is answered: each has a file of answers of its own."""
    parts = [[question.content_id for question in questions], asdict(generation)]
    return f"{folder.name}-{hash_text(json.dumps(parts), 8)}"


def config_of(
    cfg: RunConfig, other: Other, name: str, generation: GenerationConfig, chooses: bool = False
) -> RunConfig:
    """Return the job that answers as the other model; in a dry run a tiny random one stands in."""
    model = other.model
    if cfg.dry_run and model.has_weights and model.architecture is not None:
        model = replace(model, init="tiny_random", dtype="auto")
    chooses = chooses and model.has_weights and cannot_score(model) is None
    return replace(
        cfg,
        stage="evaluate",
        run=None,
        adapter=None if model.init == "tiny_random" else other.adapter,
        model=model,
        quantization=replace(other.quantization, method="none")
        if model.init == "tiny_random"
        else other.quantization,
        lora=LoraConfig(method="none"),
        dataset=replace(cfg.dataset, name=name, few_shot=0, teacher=None, answers_from=None),
        eval_dataset={},
        metric={},
        generation=replace(generation, max_new_tokens=1) if chooses else generation,
        evaluation=EvaluationConfig(
            batch_size=cfg.evaluation.batch_size or cfg.trainer.batch_size,
            candidates="train" if chooses else None,
            answer_validation="none",
            warmup_batches=0,
            timed_answers=0,
            retries=cfg.evaluation.retries,
        ),
        save_data=False,
    )


def check_others(cfg: RunConfig) -> list[str]:
    """Refuse judges and teachers that cannot work here; return what a reader has to know."""
    warnings: list[str] = []
    chosen = asdict(cfg) if cfg.learns_from_teacher else {"metric": cfg.metric}
    for key, value in others_of(chosen):
        other = other_model(value, key)
        asked = config_of(cfg, other, "asked", cfg.generation)
        if asked.model.init == "tiny_random":
            log.warning("%s: a tiny random model stands in for %s.", key, other.model.name)
        warnings += kind_of_answerer(asked).check(asked)
    return warnings


def _job(
    cfg: RunConfig,
    device: torch.device,
    questions: tuple[Example, ...],
    folder: Path,
    choices: Sequence[str],
) -> PreparedJob:
    """A job whose test split are the questions; candidates come from its training answers."""
    shown = tuple(Example((Message("user", ""),), choice, "choice") for choice in choices)
    splits = DataSplits(shown, (), questions, NOTHING)
    if not cfg.model.has_weights:
        return PreparedJob(cfg, folder, "", device, (), (Task(cfg.dataset, splits),))
    template = load_template(cfg.model)
    encoded = {"validation": EncodedSplit((), ()), "test": _encode(cfg, questions, template)}
    task = Task(cfg.dataset, splits, encoded)  # type: ignore[arg-type]
    return PreparedJob(cfg, folder, "", device, (), (task,), template)


def _encode(cfg: RunConfig, questions: Sequence[Example], template: Template) -> EncodedSplit:
    return encode_examples(
        questions,
        template,
        LONGEST,
        truncate_prompt=cfg.dry_run,
        cache_dir=Path(cfg.paths.cache),
        context=context_length(cfg.model),
        name=cfg.dataset.name,
        reserve=0 if cfg.dry_run else cfg.generation.max_new_tokens,
    )


def _kept(job: PreparedJob, other: Other, choices: Sequence[str]) -> Predicted:
    """Answers of a base or a server are kept by its answerer, those of an adapter here."""
    if job.cfg.adapter is None:
        return _answered(job)
    questions = job.task.examples("test")
    parts = {
        "other": asdict(other),
        "adapter": folder_fingerprint(Path(job.cfg.adapter)),
        "generation": asdict(job.cfg.generation),
        "choices": list(choices),
        "questions": hash_text(json.dumps([question.content_id for question in questions]), 32),
    }
    ids = [question.id for question in questions]
    return cached(Path(job.cfg.paths.cache), parts, lambda: _answered(job), ids)[0]


def _answered(job: PreparedJob) -> Predicted:
    """Load the model, let it answer, and let go of it: the job's own base is what is kept."""
    answerer = kind_of_answerer(job.cfg).load(job).specialise(job, ())
    try:
        return answerer.answer(job, job.task, "test", "base").predicted
    finally:
        if not job.cfg.model.has_weights:
            answerer.give_back(job)
        del answerer
        free_memory()
