"""What is set against what: the models of a verdict, and tests beside those of the pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sizewise import words
from sizewise.report.comparison.arms import ZERO_SHOT, Arm, TestSet
from sizewise.report.comparison.pair import Pair
from sizewise.report.comparison.pairs import ALPHA, RESAMPLES
from sizewise.report.comparison.selection import chosen_by_validation, one_per_question
from sizewise.statistics.arrays import FloatArray
from sizewise.statistics.comparison import PairedComparison, PairedScores, compare_paired_many
from sizewise.statistics.paired import holm


def scale_of(test: TestSet) -> words.Scale:
    """Scores between 0 and 1 of which more is better are shown as percent."""
    matrices = [c.scores for c in test.scored if c.scores is not None]
    inside = all(m.min() >= 0 and m.max() <= 1 for m in matrices)
    return words.Scale(bool(matrices) and inside and test.direction == "max")


def described(arm: Arm) -> str:
    """Label with the size: ``nano LoRA r=8 (0.3 M)``."""
    size = words.count(arm.params) if math.isfinite(arm.params) else "size unknown"
    return f"{arm.label} ({size})"


def highest_scoring(test: TestSet, arms: Sequence[Arm] | None = None) -> Arm | None:
    """The arm (of ``arms``) with the best recorded test score; None without a finite one.

    To be shown beside others; what is claimed is chosen by validation.
    """
    finite = [c for c in (test.arms if arms is None else arms) if np.isfinite(c.score())]
    return max(finite, key=lambda c: test.sign * c.score()) if finite else None


@dataclass(frozen=True)
class Contrast:
    """The tuned model of the verdict, its own base, and the larger zero-shot model if any."""

    small: Arm
    base: Arm | None
    large: Arm | None

    @property
    def shown(self) -> list[Arm]:
        return [c for c in (self.small, self.base, self.large) if c is not None]


def find_contrast(test: TestSet, pair: Pair | None) -> Contrast | None:
    """Take the verdict's pair, else the tuned model that is best by validation; None without."""
    if pair is not None and pair.a.tuned:
        small = pair.a
    else:
        tuned = one_per_question(test)
        if not tuned:
            return None
        small = chosen_by_validation(test, tuned)
    base = test.zero_shot_of(small)
    base = base if base is not None and base.scores is not None else None
    larger = [c for c in test.scored if c.kind == ZERO_SHOT and c.size > small.size]
    large = pair.b if pair is not None and pair.b in larger else highest_scoring(test, larger)
    return Contrast(small, base, large)


@dataclass(frozen=True)
class Tested:
    """How much better one model is than another: signed so that more is better.

    ``p`` is corrected for the other tests made with it; the interval is of this difference alone.
    """

    mean_a: float
    mean_b: float
    gain: float
    low: float
    high: float
    p: float
    examples: int

    @property
    def wins(self) -> bool:
        return self.p <= ALPHA and self.low > 0

    @property
    def loses(self) -> bool:
        return self.p <= ALPHA and self.high < 0


@dataclass(frozen=True)
class Case:
    """Scores [S, N] or [N] of two models, and which examples [N] are asked about (None: all)."""

    a: FloatArray
    b: FloatArray
    mask: NDArray[np.bool_] | None = None


def compare_cases(
    test: TestSet, cases: Sequence[Case], seed: int = 0, families: int = 1
) -> list[Tested | None]:
    """Test differences, corrected by Holm among themselves; None where the units are too few.

    ``families``: of so many such families each may err in its share of 5 % (Bonferroni).
    """
    groups = np.array(test.groups)
    found: list[PairedScores | None] = []
    for case in cases:
        mask = np.ones(len(groups), dtype=np.bool_) if case.mask is None else case.mask
        weights = None if test.weights is None else test.weights[mask]
        a, b, held = case.a[..., mask], case.b[..., mask], groups[mask]
        enough = len(set(held.tolist())) > 1
        found.append(PairedScores(a, b, held.tolist(), weights=weights) if enough else None)
    scores = [entry for entry in found if entry is not None]
    results = compare_paired_many(scores, seed, n_resamples=RESAMPLES) if scores else []
    p_values = holm([r.p_value for r in results], ALPHA, nan="propagate").adjusted
    tested = (
        _tested(test, result, min(1.0, families * float(p)))
        for result, p in zip(results, p_values, strict=True)
    )
    return [None if entry is None else next(tested) for entry in found]


def _tested(test: TestSet, result: PairedComparison, p: float) -> Tested:
    ends = (test.sign * result.interval.low, test.sign * result.interval.high)
    gain = test.sign * result.difference
    return Tested(result.mean_a, result.mean_b, gain, min(ends), max(ends), p, result.n)
