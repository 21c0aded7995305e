"""Every refusal of a job before a weight is loaded, in two lists: by configuration and by data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from sizewise.config import RunConfig
from sizewise.config.data import SplitName
from sizewise.config.evaluation import CHOICE
from sizewise.data.example import Example, Message
from sizewise.errors import ConfigError, DataError, EvaluationError
from sizewise.evaluation.candidate_set import cannot_score
from sizewise.job.answerers import kind_of_answerer
from sizewise.job.data import PreparedJob, Task, shared_questions
from sizewise.job.dry_run import reachable_metrics
from sizewise.job.language_model import LanguageModel
from sizewise.job.others.asking import check_others
from sizewise.job.others.teacher import check_teacher
from sizewise.metrics.base import ExampleMetric, build_metrics
from sizewise.metrics.reading.closed import LIKELIHOOD
from sizewise.models.architecture import context_length
from sizewise.record.predictions import Prediction
from sizewise.tracking.loggers import check_loggers

PROBE = Prediction(
    id="0",
    group="0",
    prompt="A question?",
    reference="A00",
    text="A00",
    log_prob=-1.0,
    answer_tokens=2,
    answer_bytes=3,
    prompt_tokens=3,
    new_tokens=2,
    finished=True,
    latency=1.0,
    batch_size=1,
    scores={"rejected/log_prob": -2.0, "rejected/tokens": 2.0},
)
CHOSEN = replace(PROBE, candidate="A00", candidate_per_token="A00", candidate_calibrated="A00")
PROBE_EXAMPLE = Example((Message("user", "A question?"),), "A00", "0")


def preflight(cfg: RunConfig) -> tuple[tuple[ExampleMetric, ...], tuple[str, ...]]:
    """Refuse all that can be refused from the configuration alone, the cheapest first.

    Returns:
        The metrics that the job computes, and what a reader of its scores has to know.

    Raises:
        SizewiseError: something of the configuration cannot work.
    """
    kind = kind_of_answerer(cfg)
    check_names(cfg)
    check_loggers(cfg.logger)
    nodes = reachable_metrics(cfg.metric) if cfg.dry_run else cfg.metric
    metrics = build_metrics(nodes)
    if cfg.stage != "train" or cfg.evaluation.objective == "primary":
        for metric in metrics:
            metric.check_settings()
    check_primary(cfg, metrics)
    check_teacher(cfg, metrics, issubclass(kind, LanguageModel))
    warnings = kind.check(cfg)
    usable = tuple(m for m in metrics if kind.has_likelihoods or not m.needs_likelihood)
    if cfg.dataset.primary.partition("/")[0] not in {metric.name for metric in usable}:
        raise ConfigError(
            f"dataset.primary={cfg.dataset.primary} needs likelihoods, which model="
            f"{cfg.model.name} does not give. Choose a data set whose answers are classes."
        )
    return usable, (*warnings, *check_others(cfg))


def preflight_data(job: PreparedJob) -> list[str]:
    """Refuse what only the data can tell; still no weight is loaded.

    Returns:
        What a reader of the scores has to know.

    Raises:
        SizewiseError: some of the data cannot be trained on, answered or scored.
    """
    check_objective(job.cfg, job.task)
    warnings = []
    if job.template is not None:
        check_candidates(job.cfg, job.metrics)
    check_references(job)
    if job.template is not None:
        check_room(job, context_length(job.cfg.model))
        warnings = check_readings(job)
    return [*warnings, *shared_questions(job.tasks)]


def check_names(cfg: RunConfig) -> None:
    """Raise unless every data set of the job has a name of its own: results are kept by name."""
    names = [cfg.dataset.name, *(dataset.name for dataset in cfg.eval_dataset.values())]
    for key, dataset in cfg.eval_dataset.items():
        if names.count(dataset.name) > 1:
            raise ConfigError(
                f"Two data sets of this job are called {dataset.name!r}, and results are kept by "
                f"name. Name one otherwise: eval_dataset.{key}.name={dataset.name}_2."
            )


def check_primary(cfg: RunConfig, metrics: Sequence[ExampleMetric]) -> None:
    """Raise unless the score that every data set calls its own is among the chosen metrics'."""
    chosen = {metric.name: metric for metric in metrics}
    for dataset in (cfg.dataset, *cfg.eval_dataset.values()):
        name = dataset.primary.partition("/")[0]
        if name not in chosen:
            raise ConfigError(
                f"dataset.primary={dataset.primary!r} of {dataset.name} needs the metric "
                f"{name!r}, and metric={sorted(chosen)} leaves it out. Add it: "
                f"metric=[{','.join([*sorted(chosen), name])}]."
            )
        scores = score_names(chosen[name], cfg.evaluation.candidates is not None)
        if dataset.primary not in scores:
            raise ConfigError(
                f"dataset.primary={dataset.primary!r} of {dataset.name} is no score of the metric "
                f"{name!r}. Choose one of: {', '.join(scores)}."
            )


def score_names(metric: ExampleMetric, candidates: bool = True) -> list[str]:
    """Return the names of a metric's scores, found by scoring one made-up prediction.

    Args:
        metric: the metric.
        candidates: whether candidates may be compared.
    """
    from sizewise.evaluation.score import score_predictions

    scores, _ = score_predictions([CHOSEN if candidates else PROBE], [metric], [PROBE_EXAMPLE])
    metric.reset()
    return sorted(scores)


def check_objective(cfg: RunConfig, task: Task) -> None:
    """Refuse an objective that would have to come from an empty validation split.

    Raises:
        ConfigError: ``evaluation.objective=primary`` without validation examples.
    """
    if cfg.evaluation.objective == "primary" and not task.splits.validation:
        raise ConfigError(
            f"evaluation.objective=primary is scored on validation examples, and {task.name} has "
            "none. Raise dataset.split.validation, or leave the objective at val_loss."
        )


def answered_splits(job: PreparedJob) -> Iterator[tuple[str, SplitName, Task]]:
    """Yield what the job will answer: configuration key, split and data set.

    These are the test splits, and the validation split where something is chosen by it. A data set
    without a test split is only trained on where there are others to answer.
    """
    keys = ["dataset", *(f"eval_dataset.{key}" for key in job.cfg.eval_dataset)]
    for key, task in zip(keys, job.tasks, strict=True):
        tested = task.splits.test or key != "dataset" or len(job.tasks) == 1
        if job.cfg.stage != "train" and tested:
            yield key, "test", task
        if key == "dataset" and (job.validates("base") or job.validates("tuned")):
            yield key, "validation", task


def check_references(job: PreparedJob) -> None:
    """Refuse reference answers that a chosen metric cannot score.

    Raises:
        EvaluationError: there is one; the message names data set, split and example.
        DataError: a split that is to be answered has no examples.
    """
    for key, name, task in answered_splits(job):
        if not task.examples(name):
            raise DataError(
                f"{task.name} has no {name} examples to answer. Raise {key}.split.{name}, name a "
                "further test set with eval_dataset, or train only with stage=train."
            )
        for metric in job.metrics_on(name):
            try:
                metric.check_references(task.examples(name))
            except EvaluationError as error:
                raise EvaluationError(f"{task.name}, {name} split: {error}") from error


def check_candidates(cfg: RunConfig, metrics: Sequence[ExampleMetric]) -> None:
    """Refuse a metric on candidates where none are compared, and candidates that cannot be.

    Raises:
        ConfigError: ``evaluation.candidates`` is not set, or the model is an encoder-decoder.
    """
    needing = [metric.name for metric in metrics if metric.needs_candidates]
    if needing and cfg.evaluation.candidates is None and cfg.stage != "train":
        raise ConfigError(
            f"The metric {needing[0]} needs candidates. Set evaluation.candidates=train."
        )
    if needing and cfg.evaluation.candidates_on == CHOICE:
        raise ConfigError(
            f"The metric {needing[0]} needs candidates on the test split. Leave out "
            f"evaluation.candidates_on={CHOICE}."
        )
    unable = cannot_score(cfg.model)
    if unable is not None and (needing or cfg.evaluation.candidates not in (None, "auto")):
        raise ConfigError(
            f"evaluation.candidates={cfg.evaluation.candidates}: {unable}. Leave it out, and the "
            "metrics on candidates too."
        )


def check_readings(job: PreparedJob) -> list[str]:
    """Read the candidates of every split that will be answered.

    Returns:
        Why there are no answers by likelihood where they would be expected.

    Raises:
        ConfigError: there are none, and the primary score is made of them.
    """
    splits, (_, warning) = list(answered_splits(job)), job.candidate_choice
    found = [job.candidates(task, split) for _, split, task in splits]
    reading = job.cfg.dataset.primary.partition("/")[2]
    calibrates = bool(job.task.examples("validation"))
    only = job.cfg.evaluation.candidates_on
    where = (
        f"Leave out evaluation.candidates_on={only}."
        if only
        else "Set evaluation.candidates=train."
    )
    if reading in LIKELIHOOD and splits and (only == CHOICE or not all(found)):
        raise ConfigError(
            f"dataset.primary={job.cfg.dataset.primary} is made of answers by likelihood, and "
            f"there are none. {warning or where}"
        )
    if LIKELIHOOD.get(reading) == "candidate_calibrated" and not calibrates:
        raise ConfigError(
            f"dataset.primary={job.cfg.dataset.primary} is calibrated on validation prompts, and "
            f"{job.task.name} has none. Raise dataset.split.validation."
        )
    return [warning] if warning and splits else []


SHORTEST = 8  # tokens that dataset.max_length has at least


def check_room(job: PreparedJob, positions: int | None) -> None:
    """Refuse prompts that leave no room for an answer of ``generation.max_new_tokens``.

    A model with learned positions would break off in the midst of an answer, and one with rotary
    positions would answer beyond what it was trained for. A dry run is let through: its tiny
    model has positions enough, and its tokenizer may be another one than the base's.

    Args:
        job: the job.
        positions: the longest sequence that the model takes; None: any.

    Raises:
        DataError: there are such prompts; the message says how many and what to set.
    """
    cfg = job.cfg
    if positions is None or cfg.dry_run:
        return
    for key, name, task in answered_splits(job):
        lengths = [len(item.prompt_ids) for item in task.encoded[name].encoded]
        room = positions - cfg.generation.max_new_tokens
        over = sum(length > room for length in lengths)
        if over:
            dropped = sum(task.encoded[name].dropped.values())
            more = f" {dropped} more do not fit at all and are left out." if dropped else ""
            raise DataError(
                f"{over} of {len(lengths)} {name} prompts of {task.name} (the longest has "
                f"{max(lengths)} tokens) and generation.max_new_tokens="
                f"{cfg.generation.max_new_tokens} exceed the {positions} positions of "
                f"{cfg.model.name}.{more} {_advice(key, positions, room, max(lengths))}"
            )


def _advice(key: str, positions: int, room: int, longest: int) -> str:
    ways = []
    if longest < positions:
        ways.append(f"set generation.max_new_tokens={positions - longest} or less")
    if room >= SHORTEST:
        ways.append(
            f"set {key}.max_length={room} (longer examples are left out, or cut with "
            f"{key}.truncate_prompt=true)"
        )
    ways.append("choose a model with a longer context")
    text = ", or ".join(ways)
    return f"{text[0].upper()}{text[1:]}."
