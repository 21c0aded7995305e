"""After how many answers a small model's training is paid back by its cheaper inference."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sizewise.errors import StatisticsError


@dataclass(frozen=True)
class BreakEven:
    """Answers until the costs are equal, rounded up; infinite if that never happens.

    `saving_per_answer` is in the unit of the costs (money, joules, seconds); `reason` says in
    words why the number is what it is.
    """

    answers: float
    saving_per_answer: float
    reason: str

    @property
    def reached(self) -> bool:
        """True if the training cost is paid back at some number of answers."""
        return math.isfinite(self.answers)


def break_even(
    training_cost: float, small_cost_per_answer: float, large_cost_per_answer: float
) -> BreakEven:
    """Break-even of training a small model instead of using a large one, all in one unit.

    training_cost + n · small = n · large, solved for n. Costs must be finite and not negative.
    """
    costs = {
        "training_cost": training_cost,
        "small_cost_per_answer": small_cost_per_answer,
        "large_cost_per_answer": large_cost_per_answer,
    }
    for name, cost in costs.items():
        _check(cost, name)
    saving = large_cost_per_answer - small_cost_per_answer
    if saving < 0.0:
        why = "never: an answer of the small model costs more than one of the large model"
        return BreakEven(math.inf, saving, why)
    if training_cost == 0.0:
        return BreakEven(0.0, saving, "at once: training cost nothing")
    if saving == 0.0:
        return BreakEven(math.inf, saving, "never: an answer costs the same with both models")
    answers = training_cost / saving
    if not math.isfinite(answers):
        why = "never: the saving per answer is too small to count"
        return BreakEven(math.inf, saving, why)
    needed = math.ceil(answers)
    return BreakEven(float(needed), saving, f"after {needed} answers the training is paid back")


def api_cost_per_answer(
    prompt_tokens: float,
    answer_tokens: float,
    prompt_price_per_1000: float,
    answer_price_per_1000: float | None = None,
) -> float:
    """Price of one answer of a metered interface, in the currency of the prices.

    Tokens are means per answer; without `answer_price_per_1000` both kinds cost the same.
    """
    per_answer = prompt_price_per_1000 if answer_price_per_1000 is None else answer_price_per_1000
    _check(prompt_tokens, "prompt_tokens")
    _check(answer_tokens, "answer_tokens")
    _check(prompt_price_per_1000, "prompt_price_per_1000")
    _check(per_answer, "answer_price_per_1000")
    return (prompt_tokens * prompt_price_per_1000 + answer_tokens * per_answer) / 1000.0


def device_cost(seconds: float, price_per_hour: float) -> float:
    """Cost of `seconds` on a device that costs `price_per_hour`, in the currency of the price."""
    _check(seconds, "seconds")
    _check(price_per_hour, "price_per_hour")
    return seconds * price_per_hour / 3600.0


def _check(value: float, name: str) -> None:
    if not (math.isfinite(value) and value >= 0.0):
        raise StatisticsError(f"{name}={value} must be a finite number that is not negative.")
