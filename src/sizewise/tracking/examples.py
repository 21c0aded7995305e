"""Rows of single examples for trackers; made only where ``logger.log_examples`` asks for them."""

from __future__ import annotations

from pathlib import Path

from sizewise.evaluation.prediction import Prediction
from sizewise.evaluation.predictions import read_predictions
from sizewise.outcome import Evaluation, Outcome

COLUMNS = ["id", "prompt", "reference", "base", "tuned"]


def example_rows(
    outcome: Outcome, run_dir: Path, limit: int
) -> tuple[list[str], list[list[str | None]]]:
    """Return column names and the first ``limit`` test examples with both models' answers."""
    own = outcome.data.name
    base = _by_id(outcome.base.get(own), run_dir)
    tuned = _by_id((outcome.tuned or {}).get(own), run_dir)
    rows: list[list[str | None]] = []
    for key in list(tuned or base)[:limit]:
        shown = tuned.get(key) or base[key]
        rows.append([key, shown.prompt, shown.reference, _text(base, key), _text(tuned, key)])
    return COLUMNS, rows


def _text(predictions: dict[str, Prediction], key: str) -> str | None:
    return predictions[key].text if key in predictions else None


def _by_id(evaluation: Evaluation | None, run_dir: Path) -> dict[str, Prediction]:
    if evaluation is None:
        return {}
    predictions = read_predictions(run_dir / evaluation.predictions.path)
    return {prediction.id: prediction for prediction in predictions}
