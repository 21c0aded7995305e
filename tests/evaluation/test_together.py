"""Several adapters answer one batch at once as each alone, and its caches serve them afterwards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.tiny_models import build_tiny
from transformers import DynamicCache

from sizewise.config.evaluation import GenerationConfig
from sizewise.config.model import LoraConfig, ModelConfig
from sizewise.evaluation.beginning import Beginning
from sizewise.evaluation.generate import Generated, generate_behind
from sizewise.evaluation.prompts import CachedPrompts, open_prompts
from sizewise.evaluation.together import Batch, Company, _joined, _parted, company
from sizewise.models.adapter.attach import attach_adapter
from sizewise.models.adapter.packed import NotPackableError, PackedBase, view_of, why_alone

from .conftest import sharpened
from .helpers import EOS, VOCAB, StubTemplate, byte_tokenizer

TEMPLATE = StubTemplate(byte_tokenizer(), stop_ids=(EOS, *range(180, 240)))
BEGINS = list(range(10, 30))
PROMPTS = [[*BEGINS, 3], [*BEGINS, 4, 5, 6], [*BEGINS, 7], [*BEGINS, 8, 9, 3, 4, 5, 6]]
NAMES = ("a", "b", "c", "d")
REFERENCES = [[9, 9, EOS], [5, EOS], [6, 7, 8, EOS], [EOS]]
LORAS = (LoraConfig(r=2), LoraConfig(r=4, target="attention"), LoraConfig(r=8, method="rslora"))
GREEDY = GenerationConfig(max_new_tokens=6)
WAYS = {
    "greedy": GREEDY,
    "penalised": replace(GREEDY, repetition_penalty=1.3),
    "sampled": replace(GREEDY, do_sample=True, temperature=0.9, seed=3),
}
CONFIG = ModelConfig(name="tiny", path="none", family="causal")


def adapted(base: Any) -> list[Any]:
    """Adapters that change what is answered."""
    models = [attach_adapter(view_of(base), lora, CONFIG, n) for n, lora in enumerate(LORAS)]
    generator = torch.Generator().manual_seed(2)
    for model in models:
        assert why_alone(model) == ""
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    return models


def batch(model: Any, way: GenerationConfig, shared: bool = True) -> Batch:
    beginning = Beginning(tuple(BEGINS)) if shared else Beginning()
    prompts = open_prompts(model, PROMPTS, 0, beginning)
    assert isinstance(prompts, CachedPrompts)
    prompts.begin()
    return Batch(prompts, TEMPLATE, way, NAMES, 0)


def packed(models: list[Any]) -> PackedBase:
    base = PackedBase(models[0])
    for number, model in enumerate(models):
        base.add(number, model)
    return base


def told(answers: list[Generated]) -> list[tuple[Any, ...]]:
    return [(a.token_ids, a.text, a.finished) for a in answers]


# Full attention; windows; windows that stop within the answer; learned positions.
@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3_text", "gemma2", "mistral"])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("shared", [True, False])
def test_rows_of_several_adapters_are_answered_as_alone(
    kind: str, way: GenerationConfig, shared: bool
) -> None:
    models = adapted(sharpened(build_tiny(kind, VOCAB)))
    expected = []
    for model in models:
        own = batch(model, way, shared)
        answers = generate_behind(own.prompts, TEMPLATE, way, NAMES)
        expected.append((told(answers), own.prompts.log_probs(REFERENCES)))
    assert len({str(answers) for answers, _ in expected}) == len(models)

    asked = {number: batch(model, way, shared) for number, model in enumerate(models)}
    found = asked[0].answer(packed(models), asked)
    assert [told(answers) for answers in found] == [answers for answers, _ in expected]
    assert all(a.latency != a.latency for answers in found for a in answers)
    for own, (_, log_probs) in zip(asked.values(), expected, strict=True):
        assert own.prompts.cache.get_seq_length() == own.prompts.kept_mask.shape[1]
        assert own.prompts.log_probs(REFERENCES) == pytest.approx(log_probs, abs=1e-3)


def test_some_of_the_members_answer_without_the_others() -> None:
    models = adapted(sharpened(build_tiny("llama", VOCAB)))
    base = packed(models)
    asked = {number: batch(models[number], GREEDY) for number in (2, 0)}
    found = asked[2].answer(base, asked)
    alone = [
        generate_behind(batch(models[n], GREEDY).prompts, TEMPLATE, GREEDY, NAMES) for n in (2, 0)
    ]
    assert [told(answers) for answers in found] == [told(answers) for answers in alone]


def test_after_an_answer_as_after_a_failure_nobody_has_rows() -> None:
    models = adapted(build_tiny("llama", VOCAB))
    base = packed(models)
    ids = torch.tensor(PROMPTS[:1])
    with base.answering([0, 1], 2) as model, pytest.raises(NotPackableError):
        model(input_ids=ids.repeat(3, 1))
    with base.answering([0, 1], 1) as model:
        model(input_ids=ids.repeat(2, 1))
    with pytest.raises(NotPackableError):
        base.base(input_ids=ids)


def test_only_the_same_prompts_asked_in_the_same_way_are_alike() -> None:
    model = adapted(build_tiny("llama", VOCAB))[0]
    ours = batch(model, GREEDY)
    assert ours.is_like(batch(model, GREEDY))
    others = [
        batch(model, WAYS["sampled"]),
        batch(model, GREEDY, shared=False),
        replace(ours, names=("a", "b", "c", "e")),
        replace(ours, template=replace(TEMPLATE, fingerprint="another")),
        replace(ours, prompts=open_prompts(model, [[*p[:-1], 9] for p in PROMPTS], 0)),
    ]
    assert not any(ours.is_like(other) or other.is_like(ours) for other in others)


def test_who_is_in_no_pack_answers_alone() -> None:
    model = adapted(sharpened(build_tiny("llama", VOCAB)))[0]
    own = batch(model, GREEDY)
    with company(model, lambda: NAMES, alone=False) as nobody:
        assert nobody == Company()
        answers = nobody.decode(own.prompts, TEMPLATE, GREEDY, NAMES)
    assert nobody.jobs == 1
    expected = generate_behind(batch(model, GREEDY).prompts, TEMPLATE, GREEDY, NAMES)
    assert told(answers) == told(expected)


def test_layers_that_keep_nothing_stay_where_they_are() -> None:
    """As those of a model that could look at pictures, and is shown none."""
    kept = (torch.arange(24.0).view(2, 1, 3, 4), torch.ones(2, 1, 3, 4))
    cache = DynamicCache([kept, (None, None), kept])
    first, second = _parted(_joined([cache, cache]), 2)
    for part in (first, second):
        assert [layer.get_seq_length() for layer in part.layers] == [3, 0, 3]
        assert torch.equal(part.layers[2].keys, kept[0])
        assert torch.equal(part.layers[0].values, kept[1])
