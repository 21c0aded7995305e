"""The models that the detailed views are about."""

from __future__ import annotations

from dataclasses import dataclass

from sizewise.report.candidates import ZERO_SHOT, Candidate, TestSet
from sizewise.report.pairs import representatives
from sizewise.report.verdict import Verdict


@dataclass(frozen=True)
class Focus:
    """The tuned model of the verdict, its own base, and the larger zero-shot model if any."""

    small: Candidate
    base: Candidate | None
    large: Candidate | None

    @property
    def shown(self) -> list[Candidate]:
        """All of them, the tuned one first."""
        return [c for c in (self.small, self.base, self.large) if c is not None]


def find_focus(test: TestSet, verdict: Verdict) -> Focus | None:
    """Take the verdict's pair, else the tuned model with the best validation loss; None without."""
    pair = verdict.pair
    if pair is not None and pair.a.tuned:
        small = pair.a
    else:
        tuned = representatives(test)
        if not tuned:
            return None
        small = min(tuned, key=lambda c: (c.validation is None, c.validation or 0.0, c.label))
    base = test.zero_shot_of(small)
    base = base if base is not None and base.scores is not None else None
    larger = [
        c
        for c in test.scored
        if c.kind == ZERO_SHOT and c.model.params_base > small.model.params_base
    ]
    large = pair.b if pair is not None and pair.b in larger else None
    if large is None and larger:
        large = max(larger, key=lambda c: c.model.params_base)
    return Focus(small, base, large)
