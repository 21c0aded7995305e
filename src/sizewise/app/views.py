"""Single examples and the values behind a comparison, as the app shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sizewise.record.predictions import Prediction, read_predictions
from sizewise.report.comparison.arms import Arm, TestSet
from sizewise.statistics.arrays import FloatArray

KINDS = ("all", "tuned worse than base", "tuned better than base", "equal")


@dataclass(frozen=True)
class Row:
    """One example with the answer of a model and, where there is one, that of its base."""

    own: Prediction
    base: Prediction | None

    def gain(self, primary: str, sign: float) -> float | None:
        """How much better than the base's the answer is; None where that cannot be told."""
        if self.base is None or primary not in self.own.scores or primary not in self.base.scores:
            return None
        return sign * (self.own.scores[primary] - self.base.scores[primary])


def example_rows(test: TestSet, arm: Arm) -> list[Row]:
    """Read the answers of an arm (its first seed) beside those of its base."""
    own = _read(arm)
    base = test.zero_shot_of(arm) if arm.tuned else None
    beside = {p.id: p for p in _read(base)} if base is not None else {}
    return [Row(p, beside.get(p.id)) for p in own]


def select(rows: Sequence[Row], test: TestSet, kind: str, text: str = "") -> list[Row]:
    """Filter by how tuned and base compare, and by words in prompt, reference or answer."""
    needle = text.casefold().strip()
    found = []
    for row in rows:
        gain = row.gain(test.primary, test.sign)
        fits = {
            KINDS[1]: gain is not None and gain < 0,
            KINDS[2]: gain is not None and gain > 0,
            KINDS[3]: gain == 0,
        }.get(kind, True)
        own = row.own
        if fits and (
            not needle or needle in f"{own.prompt}\n{own.reference}\n{own.text}".casefold()
        ):
            found.append(row)
    return found


def _read(arm: Arm) -> list[Prediction]:
    answers = arm.first.answers
    return read_predictions(answers.path) if answers is not None else []


OF_ANSWERS = {
    "Prompt and answer tokens": "tokens",
    "Prompt characters": "prompt_chars",
    "Confidence (mean log-probability)": "confidence",
}


def clicked(event: Any) -> int | None:
    """Return the arm's position that a plotly selection names; None: nothing chosen."""
    selection = event.get("selection") if isinstance(event, Mapping) else None
    for point in (selection or {}).get("points", []):
        value = point.get("customdata")
        value = value[0] if isinstance(value, list | tuple) and value else value
        if isinstance(value, int | float):
            return int(value)
    return None


def metric_names(test: TestSet) -> list[str]:
    """Names of everything that has a value per example, the primary score first."""
    found: set[str] = set()
    for arm in test.arms:
        answers = arm.first.answers
        if answers is not None:
            found |= set(answers.scores)
    names = sorted(found - {test.primary})
    return [*([test.primary] if test.primary in found else []), *names, *OF_ANSWERS]


def metric_values(test: TestSet, arm: Arm, name: str) -> FloatArray:
    """Finite values of one arm on the compared examples, all its seeds; empty without any."""
    parts: list[FloatArray] = []
    for member in arm.members:
        if member.answers is None:
            continue
        if name in OF_ANSWERS:
            found = getattr(member.answers, OF_ANSWERS[name])
        elif name in member.answers.scores:
            found = member.answers.scores[name]
        else:
            continue
        parts.append(found[member.answers.positions(test.ids)])
    values = np.concatenate(parts) if parts else np.empty(0)
    return np.asarray(values[np.isfinite(values)], dtype=np.float64)
