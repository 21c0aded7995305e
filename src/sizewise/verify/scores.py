"""Scores of one evaluation computed anew from its stored predictions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sizewise.errors import SizewiseError
from sizewise.record.outcome import Evaluation
from sizewise.record.predictions import read_predictions
from sizewise.verify import FAILED, OK, UNCHECKED, Check
from sizewise.verify.data import example_checks

if TYPE_CHECKING:
    from sizewise.data.example import Example
    from sizewise.metrics.base import ExampleMetric
    from sizewise.record.predictions import Prediction
    from sizewise.verify.data import Rebuilt


EXACT, ENCODED = 1e-12, 1e-3
# Metrics whose figures come from an encoder and hence differ in their last digits.
ENCODERS = ("similarity", "bertscore")


def check_scores(
    path: Path,
    evaluation: Evaluation,
    config: Mapping[str, Any],
    train: Sequence[Example],
    there: Rebuilt,
) -> Iterator[Check]:
    """Recompute every metric of an evaluation and compare aggregates and per-example scores.

    Args:
        path: the file of predictions.
        evaluation: what is recorded of them.
        config: of the run.
        train: the training examples, where they could be built anew.
        there: the data set that was answered, built anew.
    """
    try:
        predictions = read_predictions(path)
    except (OSError, ValueError, SizewiseError) as error:
        yield Check("predictions", FAILED, f"they cannot be read: {error}")
        return
    yield _examples(predictions, evaluation)
    yield from example_checks(predictions, evaluation, there)
    unseen = {name.partition("/")[0] for name in evaluation.scores}
    for name, node in sorted((config.get("metric") or {}).items()):
        metric, reason = _build(name, node)
        if metric is None:
            yield Check(f"metric {name}", UNCHECKED, reason)
            continue
        unseen.discard(metric.name)
        if _left_out(metric, config):
            continue
        yield _metric(metric, predictions, evaluation, train)
    for name in sorted(unseen):
        yield Check(f"metric {name}", UNCHECKED, "the configuration does not name it")


def _left_out(metric: ExampleMetric, config: Mapping[str, Any]) -> bool:
    """Whether a run without a language model leaves a metric out, for want of likelihoods."""
    family = (config.get("model") or {}).get("family")
    return family == "classical" and metric.needs_likelihood


def _examples(predictions: Sequence[Prediction], evaluation: Evaluation) -> Check:
    distinct = len({p.id for p in predictions})
    if len(predictions) == distinct == evaluation.examples:
        return Check("number of examples", OK)
    detail = f"{evaluation.examples} are reported, {len(predictions)} lines hold {distinct}"
    return Check("number of examples", FAILED, detail)


def _build(name: str, node: Any) -> tuple[ExampleMetric | None, str]:
    from sizewise.metrics.base import build_metrics

    try:
        return build_metrics({name: node})[0], ""
    except SizewiseError as error:
        return None, f"it cannot be built here: {error}"


def _metric(
    metric: ExampleMetric,
    predictions: Sequence[Prediction],
    evaluation: Evaluation,
    train: Sequence[Example],
) -> Check:
    title = f"metric {metric.name}"
    prefix = f"{metric.name}/"
    recorded = {k: v for k, v in evaluation.scores.items() if k.startswith(prefix)}
    try:
        metric.reset()
        metric.set_context(train)
        metric.update(predictions)
        totals = {prefix + key: value for key, value in metric.compute().items()}
    except Exception as error:
        return Check(title, UNCHECKED, f"it could not be computed here: {error}")
    if recorded and not totals:
        return Check(title, UNCHECKED, "it needs the training examples, which are not here")
    tolerance = ENCODED if metric.name in ENCODERS else EXACT
    wrong = _rows(metric, predictions, prefix, tolerance)
    wrong += _differences(recorded, totals, tolerance)
    return Check(title, FAILED if wrong else OK, "; ".join(wrong[:5]))


def _differences(
    recorded: Mapping[str, float], computed: Mapping[str, float], tolerance: float
) -> list[str]:
    found = []
    for name in sorted({*recorded, *computed}):
        before, after = recorded.get(name), computed.get(name)
        if before is None or after is None:
            side = "reported" if before is None else "computable"
            found.append(f"{name} is not {side}")
        elif not _close(before, float(after), tolerance):
            found.append(f"{name} is reported as {before!r} and computes to {float(after)!r}")
    return found


def _rows(
    metric: ExampleMetric, predictions: Sequence[Prediction], prefix: str, tolerance: float
) -> list[str]:
    """Per-example scores that differ, as one line with the first of them."""
    wrong = [
        f"{p.id}: {name} is stored as {p.scores.get(prefix + name)!r}, computes to {value!r}"
        for p, scores in zip(predictions, metric.per_example, strict=True)
        for name, value in scores.items()
        if not _close(p.scores.get(prefix + name, math.nan), value, tolerance)
    ]
    return [f"{len(wrong)} stored scores differ, first {wrong[0]}"] if wrong else []


def _close(a: float, b: float, tolerance: float) -> bool:
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    return math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)
