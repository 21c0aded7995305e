"""A byte tokenizer, tiny random models and a split of made-up examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from sizewise.config.evaluation import GenerationConfig
from sizewise.data.example import Example, Message
from sizewise.evaluation.candidate_set import CandidateSet
from sizewise.evaluation.predict import predict
from sizewise.evaluation.score import EvaluationResult, score_predicted
from sizewise.metrics.base import ExampleMetric
from sizewise.models.adapter.wrapping import base_of
from sizewise.record.predictions import PredictionStore

VOCAB = 320
EOS = 1


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte; 0 pads, 1 ends a turn."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet, 2)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<pad>", special=True), AddedToken("<end>")])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")


@dataclass(frozen=True)
class StubTemplate:
    """Prompts are the text's bytes; any of ``stop_ids`` ends an answer."""

    tokenizer: Any
    stop_ids: tuple[int, ...] = (EOS,)
    fingerprint: str = "stub"
    answer_lead: tuple[int, ...] = ()

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        return list(self.tokenizer("\n".join(m.content for m in messages)).input_ids)

    def answer_ids(self, messages: Sequence[Message], answer: str) -> list[int]:
        return [*self.tokenizer(answer).input_ids, self.stop_ids[0]]


def fails_above(model: PreTrainedModel, rows: int) -> list[int]:
    """Let the model run out of memory above ``rows`` examples; returns the sizes it saw."""
    seen: list[int] = []

    def hook(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        size = kwargs["input_ids"].shape[0]
        seen.append(size)
        if size > rows:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    model.register_forward_pre_hook(hook, with_kwargs=True)
    return seen


@dataclass(frozen=True)
class Pair:
    prompt_ids: list[int]
    answer_ids: list[int]


@dataclass(frozen=True)
class StubSplit:
    encoded: list[Pair]
    examples: list[Example]
    dropped: int = 0


QUESTIONS = (
    "My head hurts.",
    "I have been coughing at night for two weeks and cannot sleep.",
    "Why?",
    "The knee is swollen since the fall on Monday.",
    "I am thirsty all the time.",
    "Something is wrong with my stomach after every single meal that I eat.",
    "Tired.",
    "There is a rash on both of my arms.",
)


def make_split(template: StubTemplate, count: int = 8, **meta: str) -> StubSplit:
    """``count`` examples with answers that look like codes."""
    examples = [
        Example((Message("user", f"{QUESTIONS[i % 8]} {i}"),), f"E11.{i % 10}", f"g{i % 3}", meta)
        for i in range(count)
    ]
    encoded = [
        Pair(template.prompt_ids(e.messages), template.answer_ids(e.messages, e.answer))
        for e in examples
    ]
    return StubSplit(encoded, examples)


def evaluate(
    model: Any,
    split: StubSplit,
    template: StubTemplate,
    generation: GenerationConfig,
    metrics: Sequence[ExampleMetric],
    store: PredictionStore,
    train_examples: Sequence[Example] = (),
    candidates: CandidateSet | None = None,
) -> EvaluationResult:
    """Predict four at a time and score, as a job does."""
    predicted = predict(
        model, split, template, generation, store, 4, metrics=metrics, candidates=candidates
    )
    return score_predicted(predicted, split.examples, metrics, store, train_examples)


def passes(model: Any) -> list[tuple[int, int]]:
    """Let a model note the rows and tokens of what its body (or encoder) reads in each pass."""
    seen: list[tuple[int, int]] = []
    inner = base_of(model)
    body = inner.get_encoder() if inner.config.is_encoder_decoder else inner.base_model

    def hook(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        seen.append(tuple((kwargs["input_ids"] if "input_ids" in kwargs else args[0]).shape))

    body.register_forward_pre_hook(hook, with_kwargs=True)
    return seen
