"""One batch of examples through one model: answers, and likelihoods of the references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sizewise.config.evaluation import GenerationConfig
from sizewise.data.example import Example
from sizewise.data.tokens.encode import Encoded
from sizewise.data.tokens.template import Template
from sizewise.evaluation.candidate_set import CandidateSet, choose
from sizewise.evaluation.candidates import candidate_log_probs
from sizewise.evaluation.generate import Generated, generate_batch
from sizewise.evaluation.text import pad_id
from sizewise.metrics.preference import REJECTED, REJECTED_LOG_PROB, REJECTED_TOKENS
from sizewise.models.likelihood import batch_log_probs
from sizewise.record.predictions import Prediction

MEASURED = (REJECTED_LOG_PROB, REJECTED_TOKENS)


@dataclass(frozen=True)
class Measurer:
    """Everything that turns examples into predictions, except the examples.

    ``candidates``: answers whose likelihoods are compared beside free generation.
    """

    model: Any
    template: Template
    generation: GenerationConfig
    candidates: CandidateSet | None = None

    def __call__(self, examples: Sequence[Example], encoded: Sequence[Encoded]) -> list[Prediction]:
        """Measure one batch; examples with a rejected answer get its likelihood as well."""
        prompts = [item.prompt_ids for item in encoded]
        ids = [example.id for example in examples]
        answers = generate_batch(self.model, prompts, self.template, self.generation, ids)
        log_probs = self._log_probs(encoded)
        extra = self._rejected(examples, encoded)
        rows = [
            _prediction(e, item, answer, log_prob, extra.get(e.id, {}), len(examples))
            for e, item, answer, log_prob in zip(examples, encoded, answers, log_probs, strict=True)
        ]
        return rows if self.candidates is None else self._choose(rows, prompts, self.candidates)

    def _choose(
        self,
        rows: Sequence[Prediction],
        prompts: Sequence[Sequence[int]],
        candidates: CandidateSet,
    ) -> list[Prediction]:
        log_probs_BC = candidate_log_probs(
            self.model, prompts, candidates.trie, pad_id(self.template)
        )
        choices = choose(log_probs_BC, candidates.lengths, candidates.prior)
        return [
            replace(row, **choice.named(candidates.texts))
            for row, choice in zip(rows, choices, strict=True)
        ]

    def _log_probs(self, encoded: Sequence[Encoded]) -> list[float]:
        return batch_log_probs(self.model, encoded, pad_id(self.template))

    def _rejected(
        self, examples: Sequence[Example], encoded: Sequence[Encoded]
    ) -> dict[str, dict[str, float]]:
        pairs = [(e, i) for e, i in zip(examples, encoded, strict=True) if e.meta.get(REJECTED)]
        if not pairs:
            return {}
        answered = [
            Encoded(item.prompt_ids, self.template.answer_ids(e.messages, e.meta[REJECTED]))
            for e, item in pairs
        ]
        return {
            example.id: {REJECTED_LOG_PROB: value, REJECTED_TOKENS: float(len(answer.answer_ids))}
            for (example, _), answer, value in zip(
                pairs, answered, self._log_probs(answered), strict=True
            )
        }


def _prediction(
    example: Example,
    encoded: Encoded,
    answer: Generated,
    log_prob: float,
    scores: Mapping[str, float],
    batch_size: int,
) -> Prediction:
    return Prediction(
        id=example.id,
        group=example.group,
        prompt=example.prompt_text,
        reference=example.answer,
        text=answer.text,
        log_prob=log_prob,
        answer_tokens=len(encoded.answer_ids),
        answer_bytes=len(example.answer.encode()),
        prompt_tokens=len(encoded.prompt_ids),
        new_tokens=len(answer.token_ids),
        finished=answer.finished,
        latency=answer.latency,
        batch_size=batch_size,
        token_log_prob=answer.token_log_prob,
        strata=strata_of(example),
        scores=dict(scores),
    )


def strata_of(example: Example) -> dict[str, str]:
    """Return what an example is broken down by: its meta data less the rejected answer."""
    return {name: value for name, value in example.meta.items() if name != REJECTED}
