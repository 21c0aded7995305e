"""One batch of examples through one model: answers, and likelihoods behind the same reading."""

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
from sizewise.evaluation.generate import Generated, generate_behind
from sizewise.evaluation.prompts import Prompts, open_prompts
from sizewise.evaluation.text import pad_id
from sizewise.metrics.preference import REJECTED, REJECTED_LOG_PROB, REJECTED_TOKENS
from sizewise.models.likelihood import check_scorable
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
        check_scorable(encoded)
        ids = [item.prompt_ids for item in encoded]
        prompts = open_prompts(self.model, ids, pad_id(self.template))
        names = [example.id for example in examples]
        answers = generate_behind(prompts, self.template, self.generation, names)
        log_probs = prompts.log_probs([item.answer_ids for item in encoded])
        extra = self._rejected(examples, prompts)
        rows = [
            _prediction(e, item, answer, log_prob, scores, len(examples))
            for e, item, answer, log_prob, scores in zip(
                examples, encoded, answers, log_probs, extra, strict=True
            )
        ]
        return rows if self.candidates is None else _choose(rows, prompts, self.candidates)

    def _rejected(self, examples: Sequence[Example], prompts: Prompts) -> list[dict[str, float]]:
        """Return what was measured of each rejected answer; nothing of an example without one."""
        texts = [example.meta.get(REJECTED) for example in examples]
        if not any(texts):
            return [{} for _ in examples]
        answers = [
            self.template.answer_ids(example.messages, text) if text else []
            for example, text in zip(examples, texts, strict=True)
        ]
        return [
            {REJECTED_LOG_PROB: value, REJECTED_TOKENS: float(len(answer))} if answer else {}
            for answer, value in zip(answers, prompts.log_probs(answers), strict=True)
        ]


def _choose(
    rows: Sequence[Prediction], prompts: Prompts, candidates: CandidateSet
) -> list[Prediction]:
    log_probs_BC = candidate_log_probs(prompts, candidates.trie)
    choices = choose(log_probs_BC, candidates.lengths, candidates.prior)
    return [
        replace(row, **choice.named(candidates.texts))
        for row, choice in zip(rows, choices, strict=True)
    ]


def _prediction(
    example: Example,
    encoded: Encoded,
    answer: Generated,
    log_prob: float,
    scores: Mapping[str, float],
    batch_size: int,
) -> Prediction:
    return Prediction(
        **of_example(example),
        text=answer.text,
        log_prob=log_prob,
        answer_tokens=len(encoded.answer_ids),
        prompt_tokens=len(encoded.prompt_ids),
        new_tokens=len(answer.token_ids),
        finished=answer.finished,
        latency=answer.latency,
        batch_size=batch_size,
        token_log_prob=answer.token_log_prob,
        scores=dict(scores),
    )


def of_example(example: Example) -> dict[str, Any]:
    """Return the fields of a prediction that its example decides."""
    return {
        "id": example.id,
        "group": example.group,
        "prompt": example.prompt_text,
        "reference": example.answer,
        "answer_bytes": len(example.answer.encode()),
        "strata": strata_of(example),
    }


def strata_of(example: Example) -> dict[str, str]:
    """Return what an example is broken down by: its meta data less the rejected answer."""
    return {name: value for name, value in example.meta.items() if name != REJECTED}
