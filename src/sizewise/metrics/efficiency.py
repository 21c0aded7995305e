"""How fast answers come. Memory, parameters and training time stand in the outcome itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sizewise.metrics.base import ExampleMetric

if TYPE_CHECKING:
    from sizewise.record.predictions import Prediction


def share_of_batch(prediction: Prediction) -> float:
    """Seconds of its batch divided equally among the batch's examples."""
    return prediction.latency / prediction.batch_size


def _timed(prediction: Prediction) -> bool:
    return prediction.latency == prediction.latency


class Efficiency(ExampleMetric):
    """Latency and throughput of generation, after warm-up and with the device synchronised.

    ``latency_*`` are percentiles of the seconds per example: the time of a batch divided by the
    number of its examples. ``batch_latency_*`` are percentiles of what one request waits: its
    whole batch. Both are the same at batch 1. Percentiles are over examples whose time was
    measured (of a server's answers those that were asked alone).
    """

    name = "efficiency"
    higher_is_better = None

    def score(self, prediction: Prediction) -> dict[str, float]:
        return {
            "latency": share_of_batch(prediction),
            "batch_latency": prediction.latency,
            "new_tokens": float(prediction.new_tokens),
            "finished": float(prediction.finished),
        }

    def aggregate(
        self, predictions: Sequence[Prediction], scores: Sequence[Mapping[str, float]]
    ) -> dict[str, float]:
        """Percentiles (linear interpolation), examples and new tokens per second of generation."""
        timed = [(p, row) for p, row in zip(predictions, scores, strict=True) if _timed(p)]
        shares = [row["latency"] for _, row in timed] or [float("nan")]
        waits = [row["batch_latency"] for _, row in timed] or [float("nan")]
        seconds, made = sum(shares), sum(p.new_tokens for p, _ in timed)
        tokens = sum(p.new_tokens for p in predictions)
        return {
            "latency_p50": float(np.percentile(shares, 50)),
            "latency_p95": float(np.percentile(shares, 95)),
            "batch_latency_p50": float(np.percentile(waits, 50)),
            "batch_latency_p95": float(np.percentile(waits, 95)),
            "examples_per_second": len(timed) / seconds if seconds else float("nan"),
            "tokens_per_second": made / seconds if seconds else float("nan"),
            "new_tokens": tokens / len(predictions),
            "finished": sum(p.finished for p in predictions) / len(predictions),
        }
