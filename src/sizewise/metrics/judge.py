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
from sizewise.record.directories import RunDir
from sizewise.statistics.agreement import TIE, krippendorff_alpha

if TYPE_CHECKING:
    from sizewise.record.predictions import Prediction

JUDGED = "judged/"
FIRST, SECOND, UNREAD = "first", "second", "unread"
SHOWN = ("prompt", FIRST, SECOND)
REFERENCE = "reference"
ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
WON, EVEN, LOST = 1.0, 0.5, 0.0


def judged_key(judge: str, place: str) -> str:
    """Name the points of an answer that stood in ``place`` (``first`` or ``second``)."""
    return f"{JUDGED}{judge}/{place}"


def points_of(scores: Mapping[str, float], judge: str) -> tuple[float | None, float | None]:
    """Return the points of an answer when it stood first and when it stood second.

    1: it was preferred, 0: its opponent was, 0.5: a tie. None: the judge's answer could not be
    read, or it was not asked because both answers are the same.
    """
    return scores.get(judged_key(judge, FIRST)), scores.get(judged_key(judge, SECOND))


def both_orders(first: float | None, second: float | None) -> float:
    """Return the points of an answer over both orders; one that was not read is a tie.

    A judge that goes by the order alone gives every answer a half: what it prefers first it
    prefers against itself second.
    """
    return ((EVEN if first is None else first) + (EVEN if second is None else second)) / 2


def verdict_of(points: float) -> str:
    """Return who won over both orders: ``a`` (the answer), ``b`` (the opponent) or ``tie``."""
    return "a" if points > EVEN else "b" if points < EVEN else TIE


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


def habits(rows: Sequence[Mapping[str, float]], judge: str) -> dict[str, float]:
    """Return a judge's win rate and what it owes to the order (see ``Judge.aggregate``).

    Args:
        rows: the scores of every prediction.
        judge: its name.
    """
    points = [points_of(row, judge) for row in rows]
    both = [(first, second) for first, second in points if decided(first) and decided(second)]
    alone = [p for first, second in points for p in (first, _turned(second)) if decided(p)]
    unread = [row[key] for row in rows if (key := judged_key(judge, UNREAD)) in row]
    shares = {
        "first": (sum(p == WON for p in alone), len(alone)),
        "flipped": (sum(first != second for first, second in both), len(both)),
        "unread": (sum(unread), 2 * len(unread)),
    }
    wins = sum(both_orders(*pair) for pair in points) / len(points)
    return {"win": wins, **{n: part / whole for n, (part, whole) in shares.items() if whole}}


def decided(points: float | None) -> bool:
    """Whether a judge preferred one of the two."""
    return points is not None and points != EVEN


def _turned(points: float | None) -> float | None:
    return None if points is None else 1 - points
