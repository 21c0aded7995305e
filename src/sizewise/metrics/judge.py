"""How often judges prefer an answer to the same opponent's (Zheng et al. 2023, LLM-as-a-judge).

The job asks the judges, each pair in both orders, and keeps with every prediction what they said
(``judged/NAME/…``); here that is only counted, so that a record is scored again without asking.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sizewise.composition.others import judges_of, other_model
from sizewise.errors import ConfigError
from sizewise.metrics.base import ExampleMetric
from sizewise.metrics.reading.judged import (
    FIRST,
    SECOND,
    both_orders,
    habits,
    points_of,
    verdict_of,
)
from sizewise.record.directories import RunDir
from sizewise.statistics.agreement import krippendorff_alpha

if TYPE_CHECKING:
    from sizewise.record.predictions import Prediction

SHOWN = ("prompt", FIRST, SECOND)
REFERENCE = "reference"
ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined)


class Judge(ExampleMetric):
    """Share of pairs that an answer wins against the opponent, a tie as half a win.

    ``models``: the judges; ``against``: ``reference``, or the directory of a finished run whose
    answers are the opponent's; ``prompt``: a Jinja template; ``max_new_tokens``: of a judge that is
    behind a server (a local one chooses the likeliest of its three answers). Per example ``win`` is
    the mean over judges and orders.
    """

    name = "judge"

    def __init__(
        self, models: Any, prompt: str, against: str = REFERENCE, max_new_tokens: int = 16
    ) -> None:
        super().__init__()
        self.judges = judges_of(models)
        self.prompt = prompt
        self.against = against
        self.max_new_tokens = max_new_tokens

    def check_settings(self) -> None:
        """Refuse judges, an opponent or a prompt that cannot be; nobody is asked.

        Raises:
            ConfigError: the message names the key.
        """
        for name, value in self.judges.items():
            other_model(value, f"metric.judge.models.{name}")
        shown = self.render(prompt="1", first="2", second="3")
        lacking = [name for name, mark in zip(SHOWN, "123", strict=True) if mark not in shown]
        if lacking:
            raise ConfigError(f"metric.judge.prompt does not show {{{{ {lacking[0]} }}}}.")
        if self.against != REFERENCE and not RunDir(Path(self.against)).outcome.is_file():
            raise ConfigError(
                f"metric.judge.against={self.against!r} is no finished run. Give its directory, or "
                f"{REFERENCE}."
            )

    def render(self, prompt: str, first: str, second: str) -> str:
        """Write the question of one pair; the template may be anybody's, and calls nothing.

        Raises:
            ConfigError: the template cannot be rendered.
        """
        try:
            template = ENVIRONMENT.from_string(self.prompt)
            return template.render(prompt=prompt, first=first, second=second)
        except TemplateError as error:
            raise ConfigError(f"metric.judge.prompt cannot be rendered: {error}.") from error

    def score(self, prediction: Prediction) -> dict[str, float]:
        points = [points_of(prediction.scores, judge) for judge in self.judges]
        return {"win": sum(both_orders(*both) for both in points) / len(points)}

    def aggregate(
        self, predictions: Sequence[Prediction], scores: Sequence[Mapping[str, float]]
    ) -> dict[str, float]:
        """Add for every judge its own win rate and what it owes to the order.

        ``first_NAME``: how often it preferred the answer that stood first, ties left out (far from
        a half it goes by position). ``flipped_NAME``: share of the pairs decided in both orders
        where the winner changed with the order. ``unread_NAME``: share of its answers that could
        not be read. ``alpha``: Krippendorff's, of the judges' verdicts over both orders. What has
        nothing to be counted from is left out.
        """
        found = super().aggregate(predictions, scores)
        verdicts = []
        for judge in self.judges:
            rows = [prediction.scores for prediction in predictions]
            found |= {f"{name}_{judge}": value for name, value in habits(rows, judge).items()}
            verdicts.append([verdict_of(both_orders(*points_of(row, judge))) for row in rows])
        alpha = krippendorff_alpha(verdicts).alpha if len(verdicts) > 1 else float("nan")
        return found if alpha != alpha else {**found, "alpha": alpha}
