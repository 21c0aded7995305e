"""The interface of every metric: per-example scores first, aggregates second.

A user's own metric is a subclass with a ``name``, ``higher_is_better`` and ``score``:

    class Length(ExampleMetric):
        name = "length"

        def score(self, prediction):
            return {"words": float(len(prediction.text.split()))}

It is chosen like any other, by a YAML file in ``conf/metric`` that names its ``_target_``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torchmetrics import Metric

from sizewise.config.targets import build
from sizewise.data.tokens.reasoning import answer_of

if TYPE_CHECKING:
    from sizewise.data.example import Example
    from sizewise.record.predictions import Prediction


class ExampleMetric(Metric):
    """A torchmetrics metric whose state is the list of per-example scores.

    Subclasses define ``score`` (one example) and, where the mean is not the right summary,
    ``aggregate`` (all examples). Score names become ``name/score`` in outcomes.

    Attributes:
        closed: answers come from a closed set (labels, codes): every language model then also
            answers by the likelihood of the candidates (``evaluation.candidates=auto``).
        needs_candidates: without candidates there is no score at all.
        needs_likelihood: scores are made of the reference's likelihood.
        of_training: scores that depend on the training answers (``set_context``).
    """

    name: str = ""
    higher_is_better: bool | None = True
    full_state_update = False
    closed = False
    needs_candidates = False
    needs_likelihood = False
    of_training: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.predictions: list[Prediction] = []
        self.per_example: list[dict[str, float]] = []

    def gives(self, score: str) -> bool:
        """Whether ``metric/score`` is one of this metric's."""
        return score.partition("/")[0] == self.name

    def counts_as(self, answer: str) -> str:
        """Return a text that is equal for answers which are one and the same to this metric.

        Baselines count answers by it; override it where spellings of an answer score alike.
        """
        return answer_of(answer)

    def set_context(self, train_examples: Sequence[Example]) -> None:
        """Receive what no prediction tells; override it to compare answers with training data."""

    def check_settings(self) -> None:
        """Refuse settings that cannot work, such as a file that is not there.

        It is called before data is read and weights are loaded; override it where ``score`` or
        ``observe`` could fail on a setting. Nothing large is to be loaded here.

        Raises:
            SizewiseError: there is such a setting; the message names it.
        """

    def check_references(self, examples: Sequence[Example]) -> None:
        """Refuse examples whose reference answers cannot be scored.

        It is called before a weight is loaded; override it where ``score`` could fail on one.

        Raises:
            EvaluationError: there is such an example; the message names it.
        """

    def set_base(self, base: Sequence[Prediction]) -> None:
        """Receive the base's predictions for the same examples when a tuned model is scored.

        Otherwise there are none. Override it to compare the two models' answers.
        """

    def observe(self, model: Any, template: Any) -> dict[str, float]:
        """Measure the model itself, beyond its predictions; override it where that is wanted.

        The values join the aggregates. They are kept with cached zero-shot predictions, so
        ``observation`` has to say what they depend on.
        """
        return {}

    @property
    def observation(self) -> str:
        """What ``observe`` depends on besides the model; empty if it measures nothing."""
        return ""

    def score(self, prediction: Prediction) -> dict[str, float]:
        """Return the scores of one prediction, by short name."""
        raise NotImplementedError(f"{type(self).__name__} has to define score().")

    def score_batch(self, predictions: Sequence[Prediction]) -> list[dict[str, float]]:
        """Return the scores of many predictions; override it where batching is faster."""
        return [self.score(prediction) for prediction in predictions]

    def aggregate(
        self, predictions: Sequence[Prediction], scores: Sequence[Mapping[str, float]]
    ) -> dict[str, float]:
        """Summarise examples (at least one): the mean of each score over those that have it."""
        names = sorted({name for row in scores for name in row})
        return {n: _mean([row[n] for row in scores if n in row]) for n in names}

    def update(self, predictions: Sequence[Prediction]) -> None:
        self.predictions.extend(predictions)
        self.per_example.extend(self.score_batch(predictions))

    def compute(self) -> dict[str, Any]:
        """Return the aggregates of everything seen, by short name."""
        return self.aggregate(self.predictions, self.per_example) if self.predictions else {}

    def reset(self) -> None:
        super().reset()
        self.predictions = []
        self.per_example = []


def _mean(values: Sequence[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).mean()) if values else float("nan")


def build_metrics(nodes: Mapping[str, Any]) -> list[ExampleMetric]:
    """Build every ``_target_`` node of ``metric``, in the order of their keys.

    Raises:
        ConfigError: a node has no ``_target_``, cannot be built, or is no ``ExampleMetric``.
    """
    return [build(nodes[key], f"metric.{key}", ExampleMetric) for key in sorted(nodes)]
