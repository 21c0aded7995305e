from __future__ import annotations

from typing import Any

from sizewise.record.predictions import Prediction


def prediction(text: str = "", reference: str = "", **changes: Any) -> Prediction:
    """A prediction of which only what a test names matters."""
    values: dict[str, Any] = {
        "id": f"{reference}|{text}",
        "group": "g",
        "prompt": "p",
        "reference": reference,
        "text": text,
        "log_prob": -1.0,
        "answer_tokens": 2,
        "answer_bytes": len(reference.encode()),
        "prompt_tokens": 5,
        "new_tokens": 4,
        "finished": True,
        "latency": 0.5,
        "batch_size": 2,
    }
    return Prediction(**values | changes)


def measure(metric: Any, *predictions: Prediction) -> dict[str, float]:
    """The aggregates of a metric over predictions."""
    metric.update(list(predictions))
    return dict(metric.compute())
