"""Scores of one evaluation computed anew from its stored predictions."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sizewise.config import WITHOUT_LIKELIHOODS
from sizewise.errors import SizewiseError
from sizewise.metrics.reading.closed import READINGS
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
    base: Sequence[Prediction] = (),
    trust: bool = False,
) -> Iterator[Check]:
    """Recompute every metric of an evaluation and compare aggregates and per-example scores.

    Args:
        path: the file of predictions.
        train: the training examples, where they could be built anew.
        there: the data set that was answered, built anew.
        base: the base's predictions, where those of a tuned model are checked.
        trust: also call metrics that the record names and that are not sizewise's.
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
        metric, reason = _build(name, node, trust)
        if metric is None:
            yield Check(f"metric {name}", UNCHECKED, reason)
            continue
        unseen.discard(metric.name)
        if _left_out(metric, config):
            continue
        yield from _metric(metric, predictions, evaluation, train, base)
    for name in sorted(unseen):
        yield Check(f"metric {name}", UNCHECKED, "the configuration does not name it")


def _left_out(metric: ExampleMetric, config: Mapping[str, Any]) -> bool:
    """Whether a run leaves a metric out for want of likelihoods: a server's, or an encoder's."""
    family = (config.get("model") or {}).get("family")
    served = (config.get("evaluation") or {}).get("engine") == "server"
    return (served or family in WITHOUT_LIKELIHOODS) and metric.needs_likelihood


def _examples(predictions: Sequence[Prediction], evaluation: Evaluation) -> Check:
    distinct = len({p.id for p in predictions})
    if len(predictions) == distinct == evaluation.examples:
        return Check("number of examples", OK)
    detail = f"{evaluation.examples} are reported, {len(predictions)} lines hold {distinct}"
    return Check("number of examples", FAILED, detail)


def _build(name: str, node: Any, trust: bool) -> tuple[ExampleMetric | None, str]:
    from sizewise.config.targets import check_own
    from sizewise.metrics.base import build_metrics

    try:
        check_own(node, f"metric.{name}", trust)
        return build_metrics({name: node})[0], ""
    except SizewiseError as error:
        return None, f"it cannot be built here: {error}"


def _metric(
    metric: ExampleMetric,
    predictions: Sequence[Prediction],
    evaluation: Evaluation,
    train: Sequence[Example],
    base: Sequence[Prediction],
) -> Iterator[Check]:
    """Score anew, by the code of the run; what was observed of the model cannot be had again."""
    from sizewise.evaluation.score import score_predictions

    title, prefix = f"metric {metric.name}", f"{metric.name}/"
    recorded = {k: v for k, v in evaluation.scores.items() if k.startswith(prefix)}
    try:
        totals, scored = score_predictions(predictions, [metric], train, base)
        observes = bool(metric.observation)
    except Exception as error:
        yield Check(title, UNCHECKED, f"it could not be computed here: {error}")
        return
    observed = sorted(recorded.keys() - totals.keys()) if observes else []
    if observed:
        detail = f"{', '.join(observed)}: measured of the model itself"
        yield Check(f"{title}, observed", UNCHECKED, detail)
    elif recorded and not totals:
        yield Check(title, UNCHECKED, "it needs the training examples, which are not here")
        return
    tolerance = ENCODED if metric.name in ENCODERS else EXACT
    passed = _passed_over(metric, recorded, train)
    if passed:
        yield Check(f"{title}: {', '.join(sorted(passed))}", UNCHECKED, "; ".join(passed.values()))
    compared = {n: v for n, v in recorded.items() if n not in observed and n not in passed}
    totals = {n: v for n, v in totals.items() if n not in passed}
    wrong = _rows(predictions, scored, metric, tolerance, passed)
    wrong += _differences(compared, totals, tolerance)
    if compared or totals or wrong:
        yield Check.of(title, wrong[:5])


def _passed_over(
    metric: ExampleMetric, recorded: Mapping[str, float], train: Sequence[Example]
) -> dict[str, str]:
    """Return the scores that cannot be compared here, with the reason.

    A record of earlier code lacks the readings that it did not know.
    """
    names = {name: f"{metric.name}/{name}" for name in (*READINGS, *metric.of_training)}
    without = [] if train else [names[name] for name in metric.of_training]
    found = dict.fromkeys(without, "it needs the training examples, which are not here")
    new = [names[n] for n in READINGS[1:] if recorded and names[n] not in recorded]
    later = f"{metric.name}/lenient_match" in new and metric.closed
    return found | (dict.fromkeys(new, "earlier code did not score it") if later else {})


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
    predictions: Sequence[Prediction],
    scored: Sequence[Prediction],
    metric: ExampleMetric,
    tolerance: float,
    passed: Collection[str] = (),
) -> list[str]:
    """Per-example scores that differ, as one line with the first of them."""
    names = {f"{metric.name}/{name}" for scores in metric.per_example for name in scores}
    names -= set(passed)
    wrong = [
        f"{old.id}: {name.partition('/')[2]} is stored as {old.scores.get(name)!r}, "
        f"computes to {new.scores[name]!r}"
        for old, new in zip(predictions, scored, strict=True)
        for name in sorted(names & new.scores.keys())
        if not _close(old.scores.get(name, math.nan), new.scores[name], tolerance)
    ]
    return [f"{len(wrong)} stored scores differ, first {wrong[0]}"] if wrong else []


def _close(a: float, b: float, tolerance: float) -> bool:
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    return math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)
