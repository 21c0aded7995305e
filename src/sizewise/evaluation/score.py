"""From predictions to scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sizewise.data.example import Example
from sizewise.errors import ConfigError
from sizewise.evaluation.answer import MEASURED, strata_of
from sizewise.evaluation.endpoint import SERVED
from sizewise.evaluation.predict import Predicted
from sizewise.metrics.base import ExampleMetric
from sizewise.metrics.reading.judged import JUDGED
from sizewise.record.predictions import Prediction, PredictionStore


@dataclass(frozen=True)
class EvaluationResult:
    """Scores of one model on one split; the figures of cost are those of ``Predicted``.

    Attributes:
        scores: aggregates by ``metric/score``.
        predictions: one per example, in the split's order, each with its own scores.
        path: the file that holds them.
        reused: whether the predictions came from the cache of zero-shot results.
        warnings: what a reader of the scores has to know.
        judge_seconds, judge_money: what judging these answers cost; None where that is not known.
    """

    scores: Mapping[str, float]
    predictions: tuple[Prediction, ...]
    path: Path
    examples: int
    seconds: float | None
    peak_bytes: int | None
    batch_size: int
    out_of_memory: tuple[int, ...] = ()
    reused: bool = False
    warnings: tuple[str, ...] = ()
    judge_seconds: float | None = None
    judge_money: float | None = None
    jobs: float = 1.0


def score_predicted(
    predicted: Predicted,
    examples: Sequence[Example],
    metrics: Sequence[ExampleMetric],
    store: PredictionStore,
    train_examples: Sequence[Example] = (),
    reused: bool = False,
    base: Sequence[Prediction] = (),
    warnings: tuple[str, ...] = (),
) -> EvaluationResult:
    """Score predictions, however old, and write them with their scores in one piece.

    Groups and strata are taken from ``examples``: a stratum such as the frequency of a label in
    training differs between runs that share one set of zero-shot predictions. ``base``: the base's
    predictions, where those of a tuned model are scored.
    """
    rows = [_with_example(p, e) for p, e in zip(predicted.predictions, examples, strict=True)]
    scores, scored = score_predictions(rows, metrics, train_examples, base)
    store.finish(scored)
    return EvaluationResult(
        scores=scores | dict(predicted.observed),
        predictions=tuple(scored),
        path=store.path,
        examples=len(scored),
        seconds=predicted.seconds,
        peak_bytes=predicted.peak_bytes,
        batch_size=predicted.batch_size,
        out_of_memory=predicted.out_of_memory,
        reused=reused,
        warnings=warnings,
        jobs=predicted.jobs,
    )


def score_predictions(
    predictions: Sequence[Prediction],
    metrics: Sequence[ExampleMetric],
    train_examples: Sequence[Example] = (),
    base: Sequence[Prediction] = (),
) -> tuple[dict[str, float], list[Prediction]]:
    """Return the aggregates by ``metric/score`` and the predictions with their own scores.

    Raises:
        ConfigError: a metric has no name, or two share one.
    """
    _check_names(metrics)
    totals: dict[str, float] = {}
    rows: list[dict[str, float]] = [dict(prediction.scores) for prediction in predictions]
    for metric in metrics:
        metric.reset()
        metric.set_context(train_examples)
        metric.set_base(base)
        metric.update(predictions)
        totals |= {f"{metric.name}/{name}": v for name, v in metric.compute().items()}
        for row, scores in zip(rows, metric.per_example, strict=True):
            row |= {f"{metric.name}/{name}": value for name, value in scores.items()}
    scored = [
        dataclasses.replace(prediction, scores=row)
        for prediction, row in zip(predictions, rows, strict=True)
    ]
    return totals, scored


def _with_example(prediction: Prediction, example: Example) -> Prediction:
    """Scores of an earlier scoring are dropped; what the model was asked itself is kept."""
    measured = {
        name: value
        for name, value in prediction.scores.items()
        if name in MEASURED or name.startswith((SERVED, JUDGED))
    }
    return dataclasses.replace(
        prediction, group=example.group, strata=strata_of(example), scores=measured
    )


def _check_names(metrics: Sequence[ExampleMetric]) -> None:
    names = [metric.name for metric in metrics]
    if "" in names:
        raise ConfigError("A metric has no name: set the class attribute `name`.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"metric: {', '.join(twice)} is chosen twice. Keep one of each.")
