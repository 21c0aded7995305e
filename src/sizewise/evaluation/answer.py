"""One batch of examples through one model: answers, and likelihoods behind the same reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from sizewise.config.evaluation import GenerationConfig
from sizewise.data.example import Example
from sizewise.data.tokens.table import Encoded
from sizewise.data.tokens.template import Template
from sizewise.evaluation.beginning import Beginning
from sizewise.evaluation.candidate_set import CandidateSet, choose
from sizewise.evaluation.candidates import Scored
from sizewise.evaluation.drafts import Known, agreed, can_draft, longer
from sizewise.evaluation.generate import Decode, Generated, generate_behind, generate_rest
from sizewise.evaluation.prompts import CachedPrompts, Prompts, croppable, open_prompts
from sizewise.evaluation.text import pad_id
from sizewise.metrics.preference import REJECTED, REJECTED_LOG_PROB, REJECTED_TOKENS
from sizewise.models.adapter.wrapping import base_of
from sizewise.models.likelihood import check_scorable
from sizewise.record.predictions import Prediction

MEASURED = (REJECTED_LOG_PROB, REJECTED_TOKENS)


@dataclass(frozen=True)
class Measurer:
    """Everything that turns examples into predictions, except the examples.

    ``candidates``: answers whose likelihoods are compared beside free generation; ``beginning``:
    what all prompts begin with, for the weights that ``model`` has meanwhile; ``decode``: answers
    prompts of which nothing is known.
    """

    model: Any
    template: Template
    generation: GenerationConfig
    candidates: CandidateSet | None = None
    beginning: Beginning = field(default_factory=Beginning)
    decode: Decode = generate_behind

    @cached_property
    def drafts(self) -> bool:
        """Whether answers are drafted by what is read anyway; they take no time of their own."""
        inner = base_of(self.model)
        causal = not inner.config.is_encoder_decoder
        return causal and croppable(inner) and can_draft(inner, self.generation)

    def __call__(self, examples: Sequence[Example], encoded: Sequence[Encoded]) -> list[Prediction]:
        """Measure one batch; examples with a rejected answer get its likelihood as well.

        Where drafts are sure to change no text, the likelihoods come first: what they tell of the
        answers need not be decoded. Elsewhere decoding comes first, with nothing read before it.
        """
        check_scorable(encoded)
        ids = [item.prompt_ids for item in encoded]
        prompts = open_prompts(self.model, ids, pad_id(self.template), self.beginning)
        names = [example.id for example in examples]
        if isinstance(prompts, CachedPrompts) and self.drafts:
            scored = self._score(prompts, self.template.stop_ids)
            log_probs, known = self._references(prompts, encoded, scored, drafts=True)
            answers = generate_rest(prompts, self.template, self.generation, known)
        else:
            answers = self.decode(prompts, self.template, self.generation, names)
            scored = self._score(prompts)
            log_probs, _ = self._references(prompts, encoded, scored)
        extra = self._rejected(examples, prompts)
        rows = [
            _prediction(e, item, answer, log_prob, scores, len(examples))
            for e, item, answer, log_prob, scores in zip(
                examples, encoded, answers, log_probs, extra, strict=True
            )
        ]
        if self.candidates is None or scored is None:
            return rows
        return _chosen(rows, scored.log_probs, self.candidates)

    def _score(self, prompts: Prompts, stops: Sequence[int] | None = None) -> Scored | None:
        if self.candidates is None:
            return None
        return self.candidates.behind(prompts, stops)

    def _references(
        self,
        prompts: Prompts,
        encoded: Sequence[Encoded],
        scored: Scored | None,
        drafts: bool = False,
    ) -> tuple[list[float], Sequence[Known]]:
        """Return the references' log-probabilities and what is known of the greedy answers.

        A reference that is one of the candidates was read with them.
        """
        count = len(encoded)
        values, answers = [0.0] * count, [item.answer_ids for item in encoded]
        known: Sequence[Known] = [Known()] * count
        if scored is not None and self.candidates is not None:
            at = [self.candidates.places.get(tuple(answer)) for answer in answers]
            values = [
                0.0 if place is None else float(row[place])
                for row, place in zip(scored.log_probs, at, strict=True)
            ]
            answers = [a if place is None else [] for a, place in zip(answers, at, strict=True)]
            known = scored.known
        if not any(answers):
            return values, known
        logits_NV = prompts.logits(answers)
        read = prompts.summed(logits_NV, answers)
        values = [a + b for a, b in zip(values, read, strict=True)]
        if drafts:
            most = self.generation.max_new_tokens
            known = longer(known, agreed(logits_NV, answers, self.template.stop_ids, most))
        return values, known

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


def _chosen(
    rows: Sequence[Prediction], log_probs_BC: Tensor, candidates: CandidateSet
) -> list[Prediction]:
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
