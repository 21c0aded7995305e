"""Per-sample logs of other harnesses, as they stand: one list of samples per model and task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GENERATED, CHOSEN = "generated text", "the most likely choice"


@dataclass(frozen=True)
class Sample:
    """One answered question of a log.

    Attributes:
        texts: what may be the question's text: whole prompt, then the fields of its row.
        target: the reference answer; None where the log holds only its number.
        response: what the model answered.
        fields: the row's plain values by name, one of which may be an id.
        scores: the harness's own figures, by name.
    """

    texts: tuple[str, ...]
    target: str | None
    response: str
    fields: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class HarnessLog:
    """What one model answered to one task.

    Attributes:
        path: the file.
        harness: ``lm-evaluation-harness`` or ``Inspect``.
        task: its name there.
        model: the model's name.
        parameters: their number; None where the log does not say.
        response: what the responses are (``GENERATED`` or ``CHOSEN``).
        samples: those that were answered.
        notes: what a reader has to know, such as samples that failed.
    """

    path: Path
    harness: str
    task: str
    model: str
    parameters: int | None
    response: str
    samples: Sequence[Sample]
    notes: tuple[str, ...] = ()


def plain_fields(row: Any) -> dict[str, str]:
    """Return the values of a row that are texts or numbers, as text."""
    if not isinstance(row, Mapping):
        return {}
    return {
        str(name): str(value)
        for name, value in row.items()
        if isinstance(value, (str, int)) and not isinstance(value, bool)
    }


def numbers(found: Mapping[str, Any], names: Sequence[str]) -> dict[str, float]:
    """Return the figures among ``names`` that are numbers."""
    return {name: float(found[name]) for name in names if isinstance(found.get(name), (int, float))}
