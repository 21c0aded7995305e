"""One tested pair of configurations, with everything that a claim about it rests on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from sizewise.report.comparison.arms import Arm
from sizewise.statistics.bootstrap import Interval
from sizewise.statistics.comparison import PairedComparison

# A gain that would be printed as +0.0 points, or as +0.000, is none.
SMALLEST = 0.0005
Wanted = tuple[str, Arm, Arm]
"""A question, and the two that answer it."""


@dataclass(frozen=True)
class Pair:
    """A against B, with the comparison in units of the score and the corrected p-value.

    ``gain`` is how much better A is (for a score of which less is better the difference with its
    sign turned); ``found`` whether the corrected test rejects equality. ``low`` to ``high`` is
    corrected like the p-value: the interval at ``level``, 1 less the share of the 5 % at which the
    pair was tested in its place of the procedure. ``primary`` marks the pair that was tested first.
    """

    question: str
    a: Arm
    b: Arm
    result: PairedComparison
    p_corrected: float
    found: bool
    sign: float
    level: float = 0.95
    primary: bool = False

    @property
    def gain(self) -> float:
        return self.sign * self.result.difference

    @cached_property
    def _corrected(self) -> tuple[float, float]:
        return self._ends(self.result.interval_at(self.level))

    @property
    def low(self) -> float:
        return self._corrected[0]

    @property
    def high(self) -> float:
        return self._corrected[1]

    @property
    def uncorrected(self) -> tuple[float, float]:
        """Ends of the 95 % interval of this pair alone."""
        return self._ends(self.result.interval)

    @property
    def given_seeds(self) -> tuple[float, float]:
        """Ends of the 95 % interval of this pair alone, conditional on the seeds that were run."""
        return self._ends(self.result.given_seeds)

    def _ends(self, interval: Interval) -> tuple[float, float]:
        low, high = interval.low, interval.high
        return (low, high) if self.sign > 0 else (-high, -low)

    @property
    def negligible(self) -> bool:
        """Whether the gain could not be printed, or its interval has no width.

        A handful of examples that differ by next to nothing in one direction are significant.
        """
        return abs(self.gain) < SMALLEST or not self.high > self.low

    @property
    def wins(self) -> bool:
        """Whether A is shown to be better: corrected test and interval agree."""
        return self.found and self.low > 0 and not self.negligible

    @property
    def loses(self) -> bool:
        """Whether A is shown to be worse."""
        return self.found and self.high < 0 and not self.negligible

    @property
    def p_floor(self) -> float:
        """Least p-value that the random draws of the test can give; 0 where nothing was drawn."""
        return self.result.p_floor

    @property
    def at_floor(self) -> bool:
        """Whether the p-values are upper bounds: no draw was as extreme as what was seen."""
        return self.p_floor > 0.0 and self.result.p_value <= self.p_floor * (1.0 + 1e-9)

    def p_not_worse(self, margin: float) -> float:
        """One-sided p-value of "A is worse by ``margin`` or more"."""
        one_sided = self.result.one_sided
        return (one_sided if self.sign > 0 else one_sided.negated).p_at_most(-margin)

    def p_equivalent(self, margin: float) -> float:
        """p-value of two one-sided tests (Schuirmann 1987): they differ by ``margin``."""
        one_sided = self.result.one_sided
        return max(one_sided.p_at_most(-margin), one_sided.negated.p_at_most(-margin))
