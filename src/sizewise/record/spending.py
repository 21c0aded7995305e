"""What a run spends at a server, written down before it is spent."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from sizewise.config.endpoint import TokenPrices
from sizewise.errors import EvaluationError
from sizewise.files import append_durably, parse_json, whole_part

# The price of an answer among the scores of a prediction.
PER_1000 = "endpoint/cost_per_1000"


TOO_SMALL = "under 0.01"


def money(amount: float) -> str:
    """An amount in whole hundredths, and one that is too small for them: ``TOO_SMALL``."""
    text = f"{amount:.2f}"
    return TOO_SMALL if amount > 0 and text == "0.00" else text


def at_most(amount: float) -> str:
    """An upper bound of an amount: ``at most about 0.70``, ``under 0.01``."""
    text = money(amount)
    return text if text == TOO_SMALL else f"at most about {text}"


class Ledger:
    """What a run has spent, and may have spent, at a server; kept in a file that outlives kills.

    A request's highest possible price is written down before it is sent and replaced by the real
    one afterwards. One whose answer never came counts in full for ever.

    Args:
        path: the file, one JSON line per entry.
        prices: of 1,000 tokens.
        budget: never passed; None: no limit.
    """

    def __init__(self, path: Path, prices: TokenPrices, budget: float | None) -> None:
        self.path, self.prices, self.budget = path, prices, budget
        self._lock = threading.Lock()
        self._entries = _read_ledger(path)

    @property
    def spent(self) -> float:
        """Money spent so far, open requests at their highest price."""
        return sum(self._entries.values())

    def reserve(self, prompt_tokens: int, answer_tokens: int) -> int:
        """Write down a request before it is sent; return its number.

        Raises:
            EvaluationError: it could pass the budget.
        """
        if not self.prices.known:
            return -1
        highest = self.prices.cost(prompt_tokens, answer_tokens)
        with self._lock:
            if self.budget is not None and self.spent + highest > self.budget:
                raise EvaluationError(
                    f"model.budget={self.budget:g} is used up: {self.spent:.4f} are spent or "
                    f"under way and the next request may cost {highest:.4f}. The answers so far "
                    "are kept; raise model.budget and start the same command again."
                )
            number = max(self._entries, default=-1) + 1
            self._note(number, highest)
        return number

    def settle(self, number: int, cost: float) -> None:
        """Replace the price of a request by what it really was."""
        if number >= 0:
            with self._lock:
                self._note(number, cost)

    def _note(self, number: int, cost: float) -> None:
        self._entries[number] = cost
        append_durably(self.path, json.dumps([number, cost]) + "\n")


def _read_ledger(path: Path) -> dict[int, float]:
    """Read the entries, the last of each number; a torn last line was never sent."""
    if not path.exists():
        return {}
    whole = whole_part(path.read_bytes())[:-1]
    try:
        rows = [parse_json(line) for line in whole.decode().splitlines()]
        return {int(number): float(cost) for number, cost in rows}
    except (ValueError, TypeError) as error:
        raise EvaluationError(
            f"{path} is damaged ({error}), so what was spent is not known. Look at the server's "
            "own account, then remove the file and lower model.budget by that amount."
        ) from error
