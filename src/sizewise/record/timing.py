"""How fast a model answered in a timed session."""

from __future__ import annotations

from dataclasses import dataclass

MOST_ROUNDS = 3
ENOUGH_SECONDS = 1.0
"""Rounds after the first are made only while all of them took less than this."""
BUSY = 1.5
"""Seconds that passed for one of computing, above which a machine had other work to do."""

REUSED = "were reused from another run and timed under other conditions"
"""What a warning says of answers whose times are not those of the run that carries it."""


@dataclass(frozen=True)
class Timing:
    """Seconds of a sample of answers, decoded plainly; both sides of a run in one session.

    Attributes:
        side: ``base`` (untouched) or ``tuned``.
        batch_size: answers made together.
        answers: answers timed, over all rounds.
        new_tokens: mean tokens of an answer.
        per_answer: median seconds, with the lowest and the highest; a batch's are divided by its
            answers.
        per_token: the same of a new token.
        mean_per_answer: mean seconds, to be compared with the next.
        cpu_per_answer: mean seconds of computing, over all threads; None but on a CPU.
        merged: whether the adapter was merged meanwhile; None without one, and in earlier records.
    """

    side: str
    batch_size: int
    answers: int
    new_tokens: float
    per_answer: float
    per_answer_low: float
    per_answer_high: float
    per_token: float
    per_token_low: float
    per_token_high: float
    mean_per_answer: float
    cpu_per_answer: float | None = None
    merged: bool | None = None

    @property
    def busy(self) -> bool:
        """Whether much more time passed than was computed in: the machine had other work."""
        return self.cpu_per_answer is not None and (
            self.mean_per_answer > BUSY * self.cpu_per_answer
        )
