"""The outcome of a job, put together from what it used and did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sizewise.config import ModelConfig, RunConfig
from sizewise.evaluation.score import EvaluationResult
from sizewise.files import read_json
from sizewise.job.data import Task, shared_questions, shortened
from sizewise.job.dry_run import dry_run_warnings
from sizewise.models.adapter.wrapping import lora_settings
from sizewise.models.size import ModelSizes
from sizewise.models.sources import find_source, weight_files
from sizewise.record.directories import ADAPTER, RunDir
from sizewise.record.fit import FitResult
from sizewise.record.outcome import (
    CostFacts,
    DataFacts,
    Evaluation,
    FileRef,
    ModelFacts,
    Outcome,
    file_ref,
)
from sizewise.record.provenance import collect_provenance


def model_facts(cfg: RunConfig, model: Any, sizes: ModelSizes, template: Any) -> ModelFacts:
    """Describe the model of a run; its adapter as the weights that were scored have it."""
    lora = lora_settings(model)
    return ModelFacts(
        name=cfg.model.name,
        path=cfg.model.path,
        revision=getattr(model.config, "_commit_hash", None) or cfg.model.revision,
        family=cfg.model.family,
        model_type=str(model.config.model_type),
        params_total=sizes.total,
        params_trainable=sizes.trainable,
        params_base=sizes.base,
        base_bytes=base_bytes(cfg.model, sizes),
        memory_bytes=sizes.memory_bytes,
        adapter_bytes=sizes.adapter_bytes,
        dtype=str(model.dtype).removeprefix("torch."),
        quantization=cfg.quantization.method,
        lora_method=lora.method,
        lora_r=lora.r,
        lora_alpha=lora.alpha,
        lora_scale=lora.scale,
        chat_template=template.fingerprint,
        template_kwargs=dict(getattr(template, "template_kwargs", {})),
    )


def base_bytes(model: ModelConfig, sizes: ModelSizes) -> int:
    """Return the bytes of the files that a base is loaded from, else those of its memory."""
    if model.init != "pretrained":
        return sizes.memory_bytes
    folder = find_source(model.path, model.revision).folder
    files = weight_files(folder) if folder is not None else []
    return sum(file.stat().st_size for file in files) or sizes.memory_bytes


def overrides(run_dir: Path) -> list[str]:
    """Return the overrides that a run was submitted with; none for one begun by a program."""
    return list((read_json(RunDir(run_dir).job) or {}).get("overrides", []))


def data_facts(tasks: Sequence[Task]) -> DataFacts:
    """Describe the data of a run, and within ``report`` what was left out of further test sets."""
    task, *rest = tasks
    further = {other.name: {**_report(other), "dropped": _dropped(other)} for other in rest}
    return DataFacts(
        name=task.name,
        sizes={name: len(split.examples) for name, split in task.encoded.items()},
        fingerprints={name: task.splits.question_fingerprint(name) for name in task.encoded},
        dropped=_dropped(task),
        report={**_report(task), **({"further": further} if further else {})},
        prompt_fingerprint=task.prompt_fingerprint,
        token_lengths={
            f"{name}/{part}": asdict(lengths)
            for name, split in task.encoded.items()
            for part, lengths in (
                ("prompt", split.prompt_lengths),
                ("answer", split.answer_lengths),
            )
        },
    )


def _report(task: Task) -> dict[str, Any]:
    cut = shortened(task)
    return {**asdict(task.splits.report), **({"shortened": cut} if cut else {})}


def _dropped(task: Task) -> dict[str, int]:
    return {
        f"{name}/{reason}": count
        for name, split in task.encoded.items()
        for reason, count in split.dropped.items()
    }


def cost_facts(
    fit: FitResult | None, evaluations: Sequence[EvaluationResult], joules: float | None
) -> CostFacts:
    """Sum up what a run cost; evaluation figures are those of the model that stands for it."""
    peaks = [e.peak_bytes for e in evaluations if e.peak_bytes is not None]
    spent = [e.seconds for e in evaluations]
    known = [seconds for seconds in spent if seconds is not None]
    seconds = sum(known) if known and len(known) == len(spent) else None
    peak = max(peaks, default=None)
    if fit is None:
        return CostFacts(eval_seconds=seconds, eval_peak_bytes=peak, energy_joules=joules)
    return CostFacts(
        train_seconds=fit.seconds,
        train_tokens=fit.tokens,
        train_answer_tokens=fit.answer_tokens,
        train_steps=fit.steps,
        train_peak_bytes=fit.peak_bytes,
        eval_seconds=seconds,
        eval_peak_bytes=peak,
        energy_joules=joules,
        batch_size=fit.batch_size,
        accumulate=fit.accumulate,
        out_of_memory=list(fit.out_of_memory),
    )


def evaluation_record(result: EvaluationResult, task: Task, run_dir: Path) -> Evaluation:
    """Describe a scored test split by its scores and the file of its predictions.

    The fingerprint is that of the split itself: models whose tokenizers drop different examples
    share it, and are compared on the examples that both have.
    """
    return Evaluation(
        dataset=task.name,
        split="test",
        fingerprint=task.splits.question_fingerprint("test"),
        examples=result.examples,
        scores=dict(result.scores),
        predictions=file_ref(result.path, run_dir),
    )


def run_files(run_dir: Path) -> Mapping[str, FileRef]:
    """Describe the files that a run leaves: its configuration, adapter and history."""
    run = RunDir(run_dir)
    found = {"config": run.config, "metrics": run.history, "fit": run.fit}
    found |= {f"{ADAPTER}/{path.name}": path for path in sorted(run.adapter.glob("*"))}
    return {key: file_ref(path, run_dir) for key, path in found.items() if path.is_file()}


Results = Mapping[str, EvaluationResult]


def make_outcome(
    cfg: RunConfig,
    run_dir: Path,
    identity: str,
    tasks: Sequence[Task],
    model: ModelFacts,
    cost: CostFacts,
    base: Results,
    tuned: Results | None,
    validation: Mapping[str, float],
    warnings: Sequence[str] = (),
) -> Outcome:
    """Return the record of a finished job.

    Args:
        cfg: the job.
        run_dir: its directory, with all its files.
        identity: hash of its configuration.
        tasks: the data set of the run first, then every further test set.
        model: what the model is.
        cost: what the job cost.
        base: results of the untouched model by data set.
        tuned: results of the trained model; None where nothing was trained.
        validation: figures of the validation split; the objective is one of them.
        warnings: what else a reader has to know.
    """
    objective = "val_loss" if cfg.evaluation.objective == "val_loss" else cfg.dataset.primary
    return Outcome(
        run_id=run_dir.name,
        identity=identity,
        config=asdict(cfg),
        model=model,
        data=data_facts(tasks),
        cost=cost,
        primary=cfg.dataset.primary,
        direction=cfg.dataset.direction,
        base=_records(base, tasks, run_dir),
        tuned=None if tuned is None else _records(tuned, tasks, run_dir),
        validation=dict(validation),
        objective=validation.get(objective),
        seed=cfg.seed,
        provenance=collect_provenance(overrides(run_dir)),
        files=run_files(run_dir),
        warnings=[
            *dry_run_warnings(cfg),
            *warnings,
            *shared_questions(tasks),
            *(warning for result in base.values() for warning in result.warnings),
        ],
    )


def _records(results: Results, tasks: Sequence[Task], run_dir: Path) -> dict[str, Evaluation]:
    return {
        task.name: evaluation_record(results[task.name], task, run_dir)
        for task in tasks
        if task.name in results
    }
