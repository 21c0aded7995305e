"""The outcome of a job, put together from what it used and did."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sizewise.composition.others import judge_nodes
from sizewise.config import RunConfig
from sizewise.config.data import SPLITS
from sizewise.evaluation.score import EvaluationResult
from sizewise.job.answerer import Answerer
from sizewise.job.data import PreparedJob, Task, shortened
from sizewise.job.dry_run import dry_run_warnings
from sizewise.job.submit import submitted_overrides
from sizewise.record.directories import ADAPTER, VALIDATION, RunDir
from sizewise.record.outcome import (
    CostFacts,
    DataFacts,
    Evaluation,
    FileRef,
    Outcome,
    file_ref,
)
from sizewise.record.provenance import collect_provenance
from sizewise.record.timing import Timing


def data_facts(tasks: Sequence[Task]) -> DataFacts:
    """Describe the data of a run, and within ``report`` what was left out of further test sets."""
    task, *rest = tasks
    further = {other.name: {**_report(other), "dropped": _dropped(other)} for other in rest}
    return DataFacts(
        name=task.name,
        sizes={name: len(task.examples(name)) for name in SPLITS},
        fingerprints={name: task.splits.question_fingerprint(name) for name in SPLITS},
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
    report = {**asdict(task.splits.report), **({"shortened": cut} if cut else {})}
    return report if task.teacher is None else {**report, "teacher": dict(task.teacher)}


def _dropped(task: Task) -> dict[str, int]:
    return {
        f"{name}/{reason}": count
        for name, split in task.encoded.items()
        for reason, count in split.dropped.items()
    }


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


def run_files(run_dir: Path, dataset: str, validated: Collection[str]) -> Mapping[str, FileRef]:
    """Describe the files that a run leaves beside its answers to the test split."""
    run = RunDir(run_dir)
    found = {"config": run.config, "metrics": run.history, "fit": run.fit}
    found |= {
        f"{side}_{VALIDATION}": run.predictions(f"{side}_{VALIDATION}", dataset)
        for side in validated
    }
    found["teacher"] = run.taught
    found |= {f"{ADAPTER}/{path.name}": path for path in sorted(run.adapter.glob("*"))}
    return {key: file_ref(path, run_dir) for key, path in found.items() if path.is_file()}


Results = Mapping[str, EvaluationResult]


def with_judging(cost: CostFacts, cfg: RunConfig, sides: Sequence[Results]) -> CostFacts:
    """Add what judging all answers cost; nothing where nobody judged."""
    results = [result for side in sides for result in side.values()]
    if not any(judge_nodes({"metric": cfg.metric})):
        return cost
    seconds = [result.judge_seconds for result in results]
    money = [result.judge_money for result in results if result.judge_money is not None]
    known = [value for value in seconds if value is not None]
    return replace(
        cost,
        judge_seconds=sum(known) if len(known) == len(seconds) else None,
        judge_money=sum(money) if money else None,
    )


def make_outcome(
    job: PreparedJob,
    model: Answerer,
    base: Results,
    tuned: Results | None,
    validation: Mapping[str, float],
    validated: Mapping[str, Mapping[str, float]],
    joules: float | None,
    timings: Sequence[Timing] = (),
) -> Outcome:
    """Return the record of a finished job.

    Args:
        job: the job, its directory with all its files.
        model: the model that stands for the run.
        base: results of the untouched model by data set.
        tuned: results of the specialised model; None where there is none.
        validation: figures of the validation split; the objective is one of them.
        validated: scores of the answers to that split, by side.
        joules: energy that the run cost, where all of it was measured.
        timings: how fast both sides answered a sample.
    """
    cfg, run_dir = job.cfg, job.run_dir
    objective = "val_loss" if cfg.evaluation.objective == "val_loss" else cfg.dataset.primary
    own = tuned or base
    cost = replace(model.cost(list(own.values()), joules), timings=list(timings))
    data = data_facts(job.tasks)
    untouched, specialised = (_records(results, job) for results in (base, tuned or {}))
    return Outcome(
        run_id=run_dir.name,
        identity=job.identity,
        config=asdict(cfg),
        model=model.facts(job),
        data=data,
        cost=with_judging(cost, cfg, (base, tuned or {})),
        primary=cfg.dataset.primary,
        direction=cfg.dataset.direction,
        base=untouched,
        tuned=None if tuned is None else specialised,
        validation=dict(validation),
        objective=validation.get(objective),
        seed=cfg.seed,
        provenance=collect_provenance(submitted_overrides(run_dir)),
        files=run_files(run_dir, job.task.name, validated),
        warnings=[
            *dry_run_warnings(cfg),
            *job.warnings,
            *(warning for result in base.values() for warning in result.warnings),
        ],
        validated={side: dict(scores) for side, scores in validated.items()},
    )


def _records(results: Results, job: PreparedJob) -> dict[str, Evaluation]:
    return {
        task.name: evaluation_record(results[task.name], task, job.run_dir)
        for task in job.tasks
        if task.name in results
    }
