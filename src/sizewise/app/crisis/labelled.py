"""The labelled sentences that come with sizewise, for measuring a detector."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from typing import Literal

Part = Literal["dev", "held_out"]
LABELS = ("crisis", "near_miss", "ordinary", "reply")


@dataclass(frozen=True)
class Sentence:
    """One labelled sentence.

    Attributes:
        text: what a person might write to a counselling model.
        label: ``crisis``, ``near_miss`` (the words of a crisis without one), ``ordinary`` (a first
            message) or ``reply`` (a short answer in the middle of a talk, no crisis).
        category: one of ``phrases.CATEGORIES`` for a crisis, else empty.
        part: ``dev`` (phrases and classifiers may be made from it) or ``held_out``.
    """

    text: str
    label: str
    category: str
    part: str

    @property
    def is_crisis(self) -> bool:
        """Whether a detector must fire."""
        return self.label == "crisis"


def read_labelled(part: Part | None = None) -> list[Sentence]:
    """Return the labelled sentences of one part, or all."""
    path = resources.files("sizewise.app.crisis") / "labelled.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    sentences = [Sentence(**json.loads(line)) for line in lines]
    return [s for s in sentences if part is None or s.part == part]
