"""A run's stored answers, as trackers get them: figures without text, texts only where asked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from sizewise.files import hash_text
from sizewise.record.outcome import Evaluation, Outcome
from sizewise.record.predictions import WEIGHTED_BY, Prediction, read_predictions
from sizewise.statistics.bootstrap import difference_intervals
from sizewise.statistics.sides import sides_of

RESAMPLES = 4_000
MOST_ROWS = 10_000  # of a table that W&B shows
LONGEST_STRATUM = 40
GROUP_DIGITS = 12
COLUMNS = ["id", "prompt", "reference", "base", "tuned"]
Cell = str | float | bool | None


def example_rows(
    outcome: Outcome, run_dir: Path, limit: int
) -> tuple[list[str], list[list[str | None]]]:
    """Return column names and the first ``limit`` test examples with both models' answers."""
    base, tuned = _sides(outcome, run_dir)
    rows: list[list[str | None]] = []
    for key in list(tuned or base)[:limit]:
        shown = tuned.get(key) or base[key]
        rows.append([key, shown.prompt, shown.reference, _text(base, key), _text(tuned, key)])
    return COLUMNS, rows


def shown_tables(
    outcome: Outcome, run_dir: Path, texts: bool, limit: int
) -> dict[str, tuple[list[str], list[list[Any]]]]:
    """Return the tables that trackers show, by name; one without a row is left out.

    ``texts``: whether they may hold prompts and answers, those of ``limit`` examples.
    """
    tables: dict[str, tuple[list[str], list[list[Any]]]] = {}
    tables["per_example"] = scored_rows(outcome, run_dir)
    if texts:
        tables["examples"] = example_rows(outcome, run_dir, limit)
    return {name: table for name, table in tables.items() if table[1]}


def scored_rows(outcome: Outcome, run_dir: Path) -> tuple[list[str], list[list[Cell]]]:
    """Return a row per test example without any text: what it is, its scores, its latency.

    Columns without a prefix are those of the model that stands for the run; ``zero_shot/…`` are its
    untouched base's. Rows of other runs on the same data share ``id``. A group is named by a hash,
    as is a stratum that is long enough to be a text: both come from columns of the data.
    """
    base, tuned = _sides(outcome, run_dir)
    own, other = (tuned, base) if tuned else (base, {})
    strata = sorted({name for p in own.values() for name in p.strata})
    scores = sorted({name for p in (*own.values(), *other.values()) for name in p.scores})
    columns = ["id", "group", *(f"stratum/{name}" for name in strata)]
    columns += ["latency", "new_tokens", "finished", *scores]
    columns += ["zero_shot/latency", *(f"zero_shot/{name}" for name in scores)] if other else []
    rows = []
    for key, answer in list(own.items())[:MOST_ROWS]:
        row: list[Cell] = [key, hash_text(answer.group, GROUP_DIGITS)]
        row += [_stratum(answer.strata.get(name)) for name in strata]
        row += [answer.latency, answer.new_tokens, answer.finished, *_scores(answer, scores)]
        if other:
            before = other.get(key)
            row += [before.latency if before else None, *_scores(before, scores)]
        rows.append(row)
    return columns, rows


def gain_interval(outcome: Outcome, run_dir: Path) -> tuple[float, float] | None:
    """Return the ends of the 95 % interval of tuned − zero-shot on the run's own test split.

    Paired bootstrap over the examples (whole groups together), the seed taken as given. None where
    the primary score is no mean over examples, or there are not two groups.
    """
    base, tuned = _sides(outcome, run_dir)
    keys = [key for key in tuned if key in base]
    groups = [tuned[key].group for key in keys]
    if len(set(groups)) < 2:
        return None
    values = [[side[key].scores.get(outcome.primary) for key in keys] for side in (tuned, base)]
    a, b = (np.array([math.nan if v is None else v for v in row], dtype=float) for row in values)
    field = WEIGHTED_BY.get(outcome.primary)
    weights = None if field is None else np.array([getattr(tuned[key], field) for key in keys])
    own = outcome.data.name
    said = [
        evaluations[own].scores[outcome.primary]
        for evaluations in (outcome.tuned or {}, outcome.base)
    ]
    means = [float(np.average(row, weights=weights)) for row in (a, b)]
    if not np.allclose(means, said, rtol=1e-6, atol=1e-9):  # NaN is not close either
        return None
    sides = sides_of(a, b, groups, weights=weights)
    (interval,) = difference_intervals([sides], n_resamples=RESAMPLES)
    return interval.low, interval.high


def _sides(outcome: Outcome, run_dir: Path) -> tuple[dict[str, Prediction], dict[str, Prediction]]:
    own = outcome.data.name
    base, tuned = outcome.base.get(own), (outcome.tuned or {}).get(own)
    return _by_id(base, run_dir), _by_id(tuned, run_dir)


def _by_id(evaluation: Evaluation | None, run_dir: Path) -> dict[str, Prediction]:
    if evaluation is None:
        return {}
    predictions = read_predictions(run_dir / evaluation.predictions.path)
    return {prediction.id: prediction for prediction in predictions}


def _text(predictions: dict[str, Prediction], key: str) -> str | None:
    return predictions[key].text if key in predictions else None


def _stratum(value: Any) -> str | None:
    if value is None:
        return None
    text = str(value)
    return text if len(text) <= LONGEST_STRATUM else hash_text(text, GROUP_DIGITS)


def _scores(answer: Prediction | None, names: list[str]) -> list[Cell]:
    found = [answer.scores.get(name) if answer else None for name in names]
    return [value if value is not None and math.isfinite(value) else None for value in found]
