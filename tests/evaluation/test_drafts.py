"""What drafts tell of greedy answers is what decoding alone writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny_models import build_tiny

from sizewise.config.evaluation import GenerationConfig
from sizewise.config.model import LoraConfig, ModelConfig, QuantizationConfig
from sizewise.data.example import Example, Message
from sizewise.evaluation.answer import Measurer
from sizewise.evaluation.candidate_set import CandidateSet
from sizewise.evaluation.candidates import build_trie
from sizewise.evaluation.drafts import Known, agreed, can_draft
from sizewise.evaluation.generate import generate_batch
from sizewise.evaluation.predict import predict
from sizewise.models.adapter.attach import attach_adapter
from sizewise.models.base import load_base
from sizewise.models.likelihood import batch_log_probs
from sizewise.record.predictions import PredictionStore

from .conftest import sharpened
from .helpers import EOS, VOCAB, Pair, StubSplit, StubTemplate, byte_tokenizer, fails_above

MOST = 6
GREEDY = GenerationConfig(max_new_tokens=MOST)
# Grouped heads: llama, qwen3; windows of 16 tokens in every other layer: gemma2, gemma3.
CAUSAL = ("llama", "qwen3", "gemma2", "gemma3")
TEMPLATE = StubTemplate(byte_tokenizer(), stop_ids=(EOS, *range(180, 240)))


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {name: sharpened(build_tiny(name, VOCAB)) for name in CAUSAL}


def measure(model: Any, pairs: list[Pair], candidates: list[list[int]] | None) -> list[Any]:
    """Measure one batch; references may be any tokens."""
    examples = [Example((Message("user", str(i)),), "x", f"g{i}") for i in range(len(pairs))]
    chosen = None
    if candidates:
        texts = tuple(map(str, range(len(candidates))))
        chosen = CandidateSet(texts, build_trie(candidates))
    measurer = Measurer(model, TEMPLATE, GREEDY, chosen)
    assert measurer.drafts
    return measurer(examples, pairs)  # type: ignore[arg-type]


TOKENS = st.integers(2, 90)
PROMPTS = st.lists(st.lists(TOKENS, min_size=1, max_size=24), min_size=1, max_size=4)
# How much of the model's own answer each reference keeps before other tokens follow.
KEPT = st.lists(st.integers(0, MOST), min_size=4, max_size=4)


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(CAUSAL), beginning=st.lists(TOKENS, max_size=20), prompts=PROMPTS,
    kept=KEPT, tail=st.lists(TOKENS, max_size=3), tree=st.sampled_from(["none", "right", "other"]),
)  # fmt: skip
def test_texts_are_those_of_each_prompt_decoded_alone(
    models: dict[str, Any], name: str, beginning: list[int], prompts: list[list[int]],
    kept: list[int], tail: list[int], tree: str,
) -> None:  # fmt: skip
    model = models[name]
    prompts = [[*beginning, *prompt] for prompt in prompts]
    alone = [generate_batch(model, [prompt], TEMPLATE, GREEDY)[0] for prompt in prompts]
    references = [
        [*answer.token_ids[:keep], *tail, EOS]
        for answer, keep in zip(alone, kept[: len(alone)], strict=True)
    ]
    own = [list(answer.token_ids) for answer in alone]
    candidates = {"none": None, "right": [*own, [7, 8, EOS]], "other": [*references, [7, EOS]]}
    pairs = [Pair(p, r) for p, r in zip(prompts, references, strict=True)]
    rows = measure(model, pairs, candidates[tree])
    assert [(row.text, row.new_tokens, row.finished) for row in rows] == [
        (answer.text, len(answer.token_ids), answer.finished) for answer in alone
    ]
    confidences = [answer.token_log_prob for answer in alone]
    assert [row.token_log_prob for row in rows] == pytest.approx(confidences, abs=1e-4)
    wanted = batch_log_probs(model, pairs)  # type: ignore[arg-type]
    assert [row.log_prob for row in rows] == pytest.approx(wanted, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("through", ["reference", "candidates"])
def test_what_is_known_is_not_decoded(models: dict[str, Any], through: str) -> None:
    model = models["llama"]
    prompts = [[5, 9, 30], [40, 41, 42, 43]]
    own = [list(a.token_ids) for a in generate_batch(model, prompts, TEMPLATE, GREEDY)]
    references = own if through == "reference" else [[7, EOS], [8, EOS]]
    candidates = None if through == "reference" else own
    calls = fails_above(model, 100)
    measure(model, [Pair(p, r) for p, r in zip(prompts, references, strict=True)], candidates)
    assert len(calls) == (1 if through == "reference" else 2), "one pass for each kind of draft"


def test_a_token_that_leads_by_little_is_left_to_decoding() -> None:
    logits = torch.full((3, 8), -5.0)
    logits[0, 4], logits[1, 5], logits[2, 1] = 9.0, 9.0, 9.0
    assert agreed(logits, [[4, 5, 1]], [1], 9)[0].tokens == (4, 5, 1)
    logits[1, 6] = 8.999
    assert agreed(logits, [[4, 5, 1]], [1], 9)[0].tokens == (4,)
    assert agreed(logits, [[4, 5, 1]], [4], 9)[0].tokens == (4,), "it ends the answer"
    assert agreed(logits, [[3, 5, 1]], [1], 9)[0].tokens == (4,), "what the model prefers"
    nothing, short = agreed(logits[:2], [[], [4, 5]], [1], 1)
    assert (nothing, short.tokens) == (Known(), (4,))
    assert short.log_probs == pytest.approx((0.0,), abs=1e-4)


@pytest.mark.parametrize(("method", "drafts"), [("none", True), ("nf4", True), ("int8", False)])
def test_quantised_texts_do_not_depend_on_batch_or_drafts(
    models: dict[str, Any], method: str, drafts: bool, tmp_path: Path
) -> None:
    models["qwen3"].save_pretrained(tmp_path / "m")
    model = load_base(
        ModelConfig(name="tiny", path=str(tmp_path / "m"), dtype="float32"),
        QuantizationConfig(method=method, compute_dtype="float32"),
    )
    assert can_draft(model, GREEDY) is drafts
    prompts = [[5, 9, 30], [40, 41, 42, 43], [12]]
    alone = [generate_batch(model, [prompt], TEMPLATE, GREEDY)[0] for prompt in prompts]
    pairs = [Pair(p, [*a.token_ids[:2], EOS]) for p, a in zip(prompts, alone, strict=True)]
    split = StubSplit(pairs, [Example((Message("user", str(i)),), "x", f"g{i}") for i in range(3)])
    store = PredictionStore(tmp_path / "p.jsonl", "key")
    found = predict(model, split, TEMPLATE, GREEDY, store, 3).predictions  # type: ignore[arg-type]
    assert [p.text for p in found] == [a.text for a in alone]


def test_only_greedy_texts_in_full_precision_are_drafted(models: dict[str, Any]) -> None:
    model = models["llama"]
    assert can_draft(model, GREEDY)
    assert not can_draft(model, GenerationConfig(do_sample=True))
    assert not can_draft(model, GenerationConfig(repetition_penalty=1.2))
    assert not can_draft(build_tiny("llama", VOCAB).to(torch.bfloat16), GREEDY)
    torch.set_float32_matmul_precision("high")
    try:
        assert not can_draft(model, GREEDY)
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_texts_of_a_merged_adapter_are_those_of_the_adapter_beside(
    method: str, tmp_path: Path
) -> None:
    base = sharpened(build_tiny("qwen3", VOCAB))
    config = ModelConfig(name="tiny", path="tiny")
    model = attach_adapter(base, LoraConfig(method=method, r=4), config, 1).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(3))
    prompts = [[5, 9, 30], [40, 41, 42, 43], [12], [77, 3]]
    beside = [generate_batch(model, [prompt], TEMPLATE, GREEDY)[0].text for prompt in prompts]
    examples = [Example((Message("user", str(i)),), "x", f"g{i}") for i in range(4)]
    split = StubSplit([Pair(p, [8, EOS]) for p in prompts], examples)
    store = PredictionStore(tmp_path / "p.jsonl", "key")
    found = predict(model, split, TEMPLATE, GREEDY, store, 2).predictions  # type: ignore[arg-type]
    assert [p.text for p in found] == beside
    again = [generate_batch(model, [prompt], TEMPLATE, GREEDY)[0].text for prompt in prompts]
    assert again == beside
