"""One scored test example of one model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

# Scores over a corpus that are ratios of sums: its value is the mean of the examples' values,
# each weighted by this field.
WEIGHTED_BY = {
    "perplexity/bits_per_byte": "answer_bytes",
    "perplexity/nll_per_token": "answer_tokens",
}


@dataclass(frozen=True)
class Prediction:
    """What one model (base or tuned) did with one example; one line of a predictions file.

    Attributes:
        id: content hash of the example (``Example.id``).
        group: the example's group, for clustered statistics.
        strata: values for breakdowns (label, frequency band, …).
        prompt: the prompt as plain text.
        reference: the reference answer.
        text: the generated answer, special tokens removed.
        log_prob: natural-log probability of the reference answer's tokens, end of turn included.
        answer_tokens: number of those tokens.
        answer_bytes: UTF-8 length of the reference answer.
        prompt_tokens: length of the encoded prompt.
        new_tokens: generated tokens, end of turn included.
        finished: whether generation ended by itself (not by ``max_new_tokens``).
        latency: seconds from prompt to answer (its batch's time where batched), synchronised.
        batch_size: number of examples generated together.
        token_log_prob: mean natural-log probability of the generated tokens (the model's own
            confidence); None where it was not computed.
        candidate: the most likely of the given candidate answers; None where none were given.
        candidate_probability: its share of the probability of all candidates.
        scores: per-example values of every metric, by ``metric/score`` name.
    """

    id: str
    group: str
    prompt: str
    reference: str
    text: str
    log_prob: float
    answer_tokens: int
    answer_bytes: int
    prompt_tokens: int
    new_tokens: int
    finished: bool
    latency: float
    batch_size: int
    token_log_prob: float | None = None
    candidate: str | None = None
    candidate_probability: float | None = None
    strata: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return a plain mapping that ``from_json`` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Prediction:
        """Build a prediction from a stored record; unknown keys raise TypeError."""
        return cls(**record)
