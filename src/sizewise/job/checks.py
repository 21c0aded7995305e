"""What is refused once the data of a job is encoded and before a weight is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sizewise.config import RunConfig
from sizewise.data.example import SplitName
from sizewise.errors import ConfigError, EvaluationError
from sizewise.job.tasks import Task
from sizewise.metrics.base import ExampleMetric


def answered_splits(cfg: RunConfig, tasks: Sequence[Task]) -> Iterator[tuple[str, SplitName, Task]]:
    """Yield what the job will answer: configuration key, split and data set.

    These are the test splits, and the validation split where the objective is scored on it.
    """
    keys = ["dataset", *(f"eval_dataset.{key}" for key in cfg.eval_dataset)]
    for key, task in zip(keys, tasks, strict=True):
        if cfg.stage != "train":
            yield key, "test", task
        if key == "dataset" and cfg.evaluation.objective == "primary":
            yield key, "validation", task


def check_settings(cfg: RunConfig, metrics: Sequence[ExampleMetric]) -> None:
    """Let every metric that the job will compute check its own settings."""
    if cfg.stage != "train" or cfg.evaluation.objective == "primary":
        for metric in metrics:
            metric.check_settings()


def check_references(
    cfg: RunConfig, tasks: Sequence[Task], metrics: Sequence[ExampleMetric]
) -> None:
    """Refuse reference answers that a chosen metric cannot score.

    Raises:
        EvaluationError: there is one; the message names data set, split and example.
    """
    for _, name, task in answered_splits(cfg, tasks):
        for metric in metrics:
            try:
                metric.check_references(task.encoded[name].examples)
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
    if cfg.evaluation.candidates is not None and cfg.model.family == "seq2seq":
        raise ConfigError(
            f"evaluation.candidates={cfg.evaluation.candidates} is scored with causal models only, "
            f"and {cfg.model.name} is none. Leave it out, and the metrics on candidates too."
        )
