"""The path of a run: prepare → base → zero-shot → fit → tuned → record. Read it from the top."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sizewise.composition.inputs import check_places, names_hub
from sizewise.config import RunConfig
from sizewise.files import hash_text
from sizewise.job.finished import of_finished_run
from sizewise.job.submit import submitted_overrides
from sizewise.record.directories import VALIDATION, RunDir
from sizewise.record.identity import run_identity, trains, write_config
from sizewise.record.logs import job_log
from sizewise.record.outcome import Outcome, write_outcome
from sizewise.record.progress import pulse
from sizewise.record.state import finished
from sizewise.record.stops import FitStopped
from sizewise.runtime import (
    is_ddp_child,
    prepare_environment,
    quiet,
    resolve_device,
    seed_everything,
    use_threads,
)

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger

    from sizewise.config.data import SplitName
    from sizewise.energy import EnergyMeter
    from sizewise.evaluation.score import EvaluationResult
    from sizewise.job.answerer import Answerer
    from sizewise.job.data import PreparedJob, Task

log = logging.getLogger(__name__)


def run_job(cfg: RunConfig, run_dir: Path) -> Outcome:
    """Run one job in ``run_dir`` and return its outcome; go on where an earlier attempt stopped.

    Everything that can be refused is refused before a weight is loaded. A finished job is read
    back, not repeated; a torn record is no result. The record is written last, in one piece.

    Args:
        cfg: the whole job.
        run_dir: its directory, named by the job's identity.

    Raises:
        SizewiseError: the configuration, data, model or memory does not allow the job.
    """
    if (done := finished(run_dir)) is not None:
        return done
    asked, cfg = cfg, of_finished_run(cfg, submitted_overrides(run_dir))
    hub = asked.run is not None or names_hub(asked)
    prepare_environment(hub)
    quiet()
    check_places(asdict(cfg), ask_hub=True)  # before anything large is imported
    with job_log(run_dir), pulse(run_dir):
        if RunDir(run_dir).outcome.exists():
            log.warning("%s is damaged: the job is done again.", RunDir(run_dir).outcome)
        write_config(asdict(asked), run_dir)
        job = prepare(cfg, run_dir, run_identity(asked).hash)
        with use_threads(cfg.trainer.num_threads):
            return _run(job)


def prepare(cfg: RunConfig, run_dir: Path, identity: str) -> PreparedJob:
    """Check everything, read, split and encode all data; no weight is touched.

    But where a teacher writes training answers: it is asked here, and let go of.
    """
    from sizewise.job.answerers import kind_of_answerer
    from sizewise.job.data import PreparedJob, with_lesson
    from sizewise.job.others.teacher import learn_from_teacher
    from sizewise.job.preflight import preflight, preflight_data
    from sizewise.models.architecture import context_length

    metrics, warnings = preflight(cfg)
    seed_everything(cfg.seed)
    template, tasks = kind_of_answerer(cfg).read_data(cfg, run_dir)
    device = resolve_device(cfg.trainer)
    if template is not None and cfg.learns_from_teacher:
        lesson = learn_from_teacher(cfg, device, run_dir, tasks[0], metrics)
        tasks[0] = with_lesson(tasks[0], lesson, template, context_length(cfg.model), cfg)
    job = PreparedJob(cfg, run_dir, identity, device, metrics, tuple(tasks), template, warnings)
    return replace(job, warnings=(*warnings, *preflight_data(job)))


def _run(job: PreparedJob) -> Outcome:
    from sizewise.job.served import close_engine
    from sizewise.tracking import finish_loggers

    if is_ddp_child():  # a further process of a distributed fit: the first one keeps the books
        join_fit(job)
        raise SystemExit(0)
    loggers = open_loggers(job)
    outcome: Outcome | None = None
    error = True
    try:
        outcome = carry_out(job, loggers)
        error = False
    except FitStopped:
        error = False
        raise
    finally:
        close_engine()
        finish_loggers(loggers, outcome, error)
    # Last of all: a run killed before its trackers were closed is not done, and closes them again.
    write_outcome(outcome, job.run_dir)
    log.info("%s. %s", outcome.summary, job.run_dir)
    return outcome


def join_fit(job: PreparedJob) -> None:
    """Take part in a fit as a further process of it; where nothing is trained there is none."""
    from sizewise.evaluation.text import pad_id
    from sizewise.job.answerers import kind_of_answerer
    from sizewise.job.fitting import train_divided

    if not trains(asdict(job.cfg)):
        return
    if job.cfg.trainer.shards:
        assert job.template is not None
        train_divided(job.cfg, job.task, pad_id(job.template), (), job.run_dir)
    else:
        kind_of_answerer(job.cfg).load(job).specialise(job, ())


def carry_out(job: PreparedJob, loggers: Sequence[Logger]) -> Outcome:
    """Score the base, train, score the result; return the record."""
    from sizewise.energy import EnergyMeter, gpu_uuids
    from sizewise.job.answerers import kind_of_answerer
    from sizewise.job.outcome import make_outcome
    from sizewise.training.seat import current_seat

    # In a pack the counters tell what all of its jobs use.
    whole = not went_before(job) and current_seat() is None
    meter = EnergyMeter(gpu_uuids(job.device, job.cfg.trainer.devices))
    base = kind_of_answerer(job.cfg).load(job)
    validated = score_validation(job, base, "base", meter)
    meter.start()
    untouched = score_untouched(job, base, meter)
    if job.specialises:
        meter.start()  # the base's answers are every run's, and not what this one cost
    else:
        whole = whole and not any(result.reused for result in untouched.values())
    model = base.specialise(job, loggers)
    tuned = None
    if job.specialises:
        with meter.paused():
            validated |= score_validation(job, model, "tuned", meter)
        tuned = score_tuned(job, model, untouched, meter)
    joules = meter.stop() if whole and model.uses_energy else None
    figures = validation_figures(job, model, validated)
    timings = model.time_answers(job)
    outcome = make_outcome(job, model, untouched, tuned, figures, validated, joules, timings)
    model.give_back(job)
    return outcome


def score_untouched(
    job: PreparedJob, base: Answerer, meter: EnergyMeter
) -> dict[str, EvaluationResult]:
    """Score the untouched model on every test split, where that is wanted."""
    wanted = job.cfg.evaluation.zero_shot or not job.specialises
    if job.cfg.stage == "train" or not wanted or not base.answers_untouched:
        return {}
    return {task.name: score(job, base, task, "base", meter) for task in job.tested}


def score_tuned(
    job: PreparedJob, model: Answerer, untouched: dict[str, EvaluationResult], meter: EnergyMeter
) -> dict[str, EvaluationResult]:
    """Score the specialised model on every test split, beside the base's answers."""
    if job.cfg.stage == "train":
        return {}
    return {
        task.name: score(job, model, task, "tuned", meter, untouched.get(task.name))
        for task in job.tested
    }


def score_validation(
    job: PreparedJob, model: Answerer, side: str, meter: EnergyMeter
) -> dict[str, Mapping[str, float]]:
    """Score a model on the validation split, where something is chosen by that; else nothing.

    Args:
        job: the job.
        model: who answers.
        side: ``base`` (untouched) or ``tuned`` (specialised).
        meter: as of ``score``.
    """
    if not job.validates(side) or (side == "base" and not model.answers_untouched):
        return {}
    return {side: score(job, model, job.task, f"{side}_{VALIDATION}", meter).scores}


def validation_figures(
    job: PreparedJob, model: Answerer, validated: Mapping[str, Mapping[str, float]]
) -> dict[str, float]:
    """Return the validation figures of the model that stands for the run.

    Without a validation split there are none; the test split gives none.
    """
    if not job.task.examples("validation"):
        return {}
    values = model.validation_loss(job)
    if job.cfg.evaluation.objective == "primary":
        values |= validated["tuned" if job.specialises else "base"]
    return values


def score(
    job: PreparedJob,
    model: Answerer,
    task: Task,
    kind: str,
    meter: EnergyMeter,
    base: EvaluationResult | None = None,
) -> EvaluationResult:
    """Let a model answer a data set, and score its answers, by judges too where these are named.

    Args:
        job: the job.
        model: who answers.
        task: the data set.
        kind: ``base`` or ``tuned`` (the test split), ``base_validation`` or ``tuned_validation``.
        meter: measures the job's own energy, of which judging is no part.
        base: the base's result, where metrics compare a tuned model with it.
    """
    from sizewise.evaluation.score import score_predicted
    from sizewise.job.others.judge import judged

    split: SplitName = "validation" if kind.endswith(VALIDATION) else "test"
    answers = model.answer(job, task, split, kind)
    with meter.paused():
        answers, cost = judged(job, task, split, answers)
    result = score_predicted(
        answers.predicted,
        task.examples(split),
        job.metrics_on(split),
        answers.store,
        job.task.examples("train"),
        answers.reused,
        base.predictions if base is not None else (),
        answers.warnings,
    )
    return replace(result, judge_seconds=cost.seconds, judge_money=cost.money)


def went_before(job: PreparedJob) -> bool:
    """Whether some of what this run costs was, or is, spent by another process."""
    run = RunDir(job.run_dir)
    left = [run.checkpoints, run.fit]
    left += run.all_predictions.glob(f"{'tuned' if job.specialises else 'base'}.*")
    return job.cfg.trainer.num_nodes > 1 or any(path.exists() for path in left)


def open_loggers(job: PreparedJob) -> list[Logger]:
    """Open the trackers of a run, under a name that stays the same."""
    from sizewise.tracking import make_loggers

    cfg, group = job.cfg, sweep_name(job.cfg, job.run_dir)
    return make_loggers(
        cfg.logger,
        job.run_dir,
        run_id=tracking_id(group, job.identity),
        group=group,
        job_type="train" if trains(asdict(cfg)) else "evaluate",
        tags=tracking_tags(job),
        config=asdict(cfg),
        facts={"arm": arm_of(job), "device": job.device.type},
    )


def arm_of(job: PreparedJob) -> str:
    """Name what stands for the run as reports do: zero-shot, tuned, classical or encoder."""
    if job.cfg.model.family in ("classical", "encoder"):
        return job.cfg.model.family
    return "tuned" if job.specialises else "zero-shot"


def tracking_tags(job: PreparedJob) -> tuple[str, ...]:
    """Say in a few words what the run is: model, data, arm, method with rank, storage."""
    cfg, lora = job.cfg, job.cfg.lora
    adapter = (lora.method, f"r={lora.r}") if lora.method != "full" else ("full",)
    method = adapter if trains(asdict(cfg)) and arm_of(job) == "tuned" else ()
    tags = (cfg.model.name, cfg.dataset.name, arm_of(job), *method, cfg.quantization.method)
    return tuple(dict.fromkeys(tag for tag in tags if tag != "none"))


def sweep_name(cfg: RunConfig, run_dir: Path) -> str | None:
    """Return the name of the sweep that a run belongs to, or None for a run on its own."""
    if run_dir.parent.resolve() == Path(cfg.paths.outputs).resolve():
        return None
    return cfg.sweep.name or run_dir.parent.name


def tracking_id(group: str | None, identity: str) -> str:
    """Name a run for trackers: the same run of the same sweep, the same id, every time."""
    return hash_text(f"{group}/{identity}", 16)
