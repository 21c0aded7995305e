"""The outcome of a job, put together from what it used and did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from sizewise.config import RunConfig
from sizewise.evaluation.evaluate import EvaluationResult
from sizewise.job import facts
from sizewise.job.dry_run import dry_run_warnings
from sizewise.job.tasks import Task, shared_questions
from sizewise.outcome import CostFacts, Evaluation, ModelFacts, Outcome
from sizewise.provenance import collect_provenance

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
        data=facts.data_facts(tasks[0]),
        cost=cost,
        primary=cfg.dataset.primary,
        direction=cfg.dataset.direction,
        base=_records(base, tasks, run_dir),
        tuned=None if tuned is None else _records(tuned, tasks, run_dir),
        validation=dict(validation),
        objective=validation.get(objective),
        seed=cfg.seed,
        provenance=collect_provenance(facts.overrides(run_dir)),
        files=facts.run_files(run_dir),
        warnings=[
            *dry_run_warnings(cfg),
            *warnings,
            *shared_questions(tasks),
            *(warning for result in base.values() for warning in result.warnings),
        ],
    )


def _records(results: Results, tasks: Sequence[Task], run_dir: Path) -> dict[str, Evaluation]:
    return {
        task.name: facts.evaluation_record(results[task.name], task, run_dir)
        for task in tasks
        if task.name in results
    }
