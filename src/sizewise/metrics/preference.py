"""How often the chosen answer is more likely than the rejected one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sizewise.errors import EvaluationError
from sizewise.metrics.base import ExampleMetric

if TYPE_CHECKING:
    from sizewise.data.example import Example
    from sizewise.record.predictions import Prediction

REJECTED = "rejected"
REJECTED_LOG_PROB = "rejected/log_prob"
REJECTED_TOKENS = "rejected/tokens"
NONE_REJECTED = (
    "The metric preference needs rejected answers, and no example has one. Set dataset.rejected to "
    "the column that holds them."
)


class Preference(ExampleMetric):
    """Compares log-probabilities of chosen and rejected answers (Rafailov et al. 2023, accuracy).

    ``preferred`` compares sums, ``preferred_per_token`` means per token, which do not favour the
    shorter answer; ``margin`` is the difference of the sums in nats. A tie counts one half. An
    example without a rejected answer has only the score ``missing``, which is counted.
    """

    name = "preference"
    needs_likelihood = True

    def check_references(self, examples: Sequence[Example]) -> None:
        if examples and not any(example.meta.get(REJECTED) for example in examples):
            raise EvaluationError(NONE_REJECTED)

    def score(self, prediction: Prediction) -> dict[str, float]:
        if REJECTED_LOG_PROB not in prediction.scores:
            return {"missing": 1.0}
        chosen, rejected = prediction.log_prob, prediction.scores[REJECTED_LOG_PROB]
        chosen_mean = chosen / prediction.answer_tokens
        rejected_mean = rejected / prediction.scores[REJECTED_TOKENS]
        return {
            "missing": 0.0,
            "preferred": _wins(chosen, rejected),
            "preferred_per_token": _wins(chosen_mean, rejected_mean),
            "margin": chosen - rejected,
            "margin_per_token": chosen_mean - rejected_mean,
        }

    def aggregate(
        self, predictions: Sequence[Prediction], scores: Sequence[Mapping[str, float]]
    ) -> dict[str, float]:
        """Means over the examples that have a rejected answer.

        Raises:
            EvaluationError: none has.
        """
        if scores and all(row["missing"] for row in scores):
            raise EvaluationError(NONE_REJECTED)
        return super().aggregate(predictions, scores)


def _wins(value: float, other: float) -> float:
    return 0.5 if value == other else float(value > other)
