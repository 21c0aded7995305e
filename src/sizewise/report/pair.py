"""One tested pair of configurations."""

from __future__ import annotations

from dataclasses import dataclass

from sizewise.report.candidates import Candidate
from sizewise.statistics.records import PairedComparison


@dataclass(frozen=True)
class Pair:
    """A against B, with the comparison in units of the score and the corrected p-value.

    ``gain`` is how much better A is (for a score of which less is better the difference with its
    sign turned); ``found`` whether the corrected test rejects equality.
    """

    question: str
    a: Candidate
    b: Candidate
    result: PairedComparison
    p_corrected: float
    found: bool
    sign: float

    @property
    def gain(self) -> float:
        """Improvement of A over B in units of the score."""
        return self.sign * self.result.difference

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval of the gain."""
        interval = self.result.interval
        return interval.low if self.sign > 0 else -interval.high

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval of the gain."""
        interval = self.result.interval
        return interval.high if self.sign > 0 else -interval.low

    @property
    def wins(self) -> bool:
        """Whether A is shown to be better: corrected test and interval agree."""
        return self.found and self.low > 0

    @property
    def loses(self) -> bool:
        """Whether A is shown to be worse."""
        return self.found and self.high < 0
