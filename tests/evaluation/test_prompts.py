"""One reading of each prompt serves its answer, likelihoods and candidates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny_models import build_tiny

from sizewise.config.evaluation import GenerationConfig
from sizewise.data.batches.collate import pad_with_mask
from sizewise.data.tokens.table import Encoded
from sizewise.evaluation.answer import REJECTED_LOG_PROB, Measurer
from sizewise.evaluation.beginning import Beginning
from sizewise.evaluation.candidate_set import encode_candidates
from sizewise.evaluation.candidates import candidate_log_probs
from sizewise.evaluation.generate import generate_batch, generate_behind
from sizewise.evaluation.prompts import SeparatePrompts, open_prompts
from sizewise.models.likelihood import batch_log_probs

from .conftest import sharpened
from .helpers import EOS, VOCAB, StubTemplate, byte_tokenizer, make_split, passes

GREEDY = GenerationConfig(max_new_tokens=5)
SAMPLING = GenerationConfig(max_new_tokens=5, do_sample=True, temperature=0.9, seed=3)
# Grouped heads: llama, qwen3; windows of 16 tokens in every other layer: gemma2, gemma3.
CAUSAL = ("llama", "qwen3", "mistral", "gemma2", "gemma3")
TEMPLATE = StubTemplate(byte_tokenizer(), stop_ids=(EOS, *range(180, 240)))


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    found = {name: sharpened(build_tiny(name, VOCAB)) for name in CAUSAL}
    found["t5"] = sharpened(build_tiny("t5", VOCAB))
    found["t5"].config.decoder_start_token_id = found["t5"].config.pad_token_id = 0
    return found


TOKENS = st.integers(2, 90)
PROMPTS = st.lists(st.lists(TOKENS, min_size=1, max_size=30), min_size=1, max_size=5)
BEGINNING = st.lists(TOKENS, max_size=20)
ANSWERS = st.lists(st.lists(TOKENS, min_size=1, max_size=6), min_size=10, max_size=10)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from([*CAUSAL, "t5"]), beginning=BEGINNING, prompts=PROMPTS, answers=ANSWERS,
    sample=st.booleans(),
)  # fmt: skip
def test_ragged_batches_have_the_texts_and_scores_of_separate_passes(
    models: dict[str, Any],
    name: str,
    beginning: list[int],
    prompts: list[list[int]],
    answers: list[list[int]],
    sample: bool,
) -> None:
    model, count = models[name], len(prompts)
    prompts = [[*beginning, *prompt] for prompt in prompts]
    references, rejected = answers[:count], answers[5 : 5 + count]
    decoding = SAMPLING if sample else GREEDY
    padded = pad_with_mask(prompts, 0, left=name != "t5", device=torch.device("cpu"))
    separate = SeparatePrompts(model, prompts, *padded)
    shared = open_prompts(model, prompts, 0, Beginning.of(model, prompts))

    def measured(read: Any) -> tuple[Any, ...]:
        found = generate_behind(read, TEMPLATE, decoding)
        return found, read.log_probs(references), read.log_probs(rejected)

    (texts, *scores), (wanted, *expected) = measured(shared), measured(separate)
    assert [a.token_ids for a in texts] == [a.token_ids for a in wanted]
    for found, right in zip(scores, expected, strict=True):
        assert found == pytest.approx(right, rel=1e-5, abs=1e-5)
    found_BC = candidate_log_probs(shared, answers)
    alone = [open_prompts(model, [prompt], 0) for prompt in prompts]
    expected_BC = torch.cat([candidate_log_probs(each, answers) for each in alone])
    assert torch.allclose(found_BC, expected_BC, rtol=1e-5, atol=1e-5)


def measurer(model: Any, split: Any) -> Measurer:
    texts = sorted({example.answer for example in split.examples})
    return Measurer(model, TEMPLATE, GREEDY, encode_candidates(texts, TEMPLATE, ()))


@pytest.mark.parametrize("name", ["qwen3", "t5"])
def test_every_prompt_is_read_once_for_all_that_is_measured(
    models: dict[str, Any], name: str
) -> None:
    split = make_split(TEMPLATE, 4, rejected="No idea.")
    model = models[name]
    longest = max(len(item.prompt_ids) for item in split.encoded)
    seen = passes(model)
    rows = measurer(model, split)(split.examples, split.encoded)
    assert len([tokens for _, tokens in seen if tokens >= longest - 1]) == 1
    assert all(REJECTED_LOG_PROB in row.scores and row.candidate for row in rows)


def test_a_reference_is_scored_the_same_with_and_without_a_rejected_answer_beside_it(
    models: dict[str, Any],
) -> None:
    """Of one batch only some examples may have a rejected answer."""
    plain, paired = make_split(TEMPLATE, 4), make_split(TEMPLATE, 4, rejected="No.")
    examples = [*paired.examples[:2], *plain.examples[2:]]
    rows = measurer(models["llama"], plain)(examples, plain.encoded)
    wanted = batch_log_probs(models["llama"], plain.encoded)
    assert [row.log_prob for row in rows] == pytest.approx(wanted, rel=1e-5, abs=1e-5)
    assert [REJECTED_LOG_PROB in row.scores for row in rows] == [True, True, False, False]
    pairs = [Encoded(i.prompt_ids, TEMPLATE.answer_ids((), "No.")) for i in plain.encoded[:2]]
    found = [row.scores[REJECTED_LOG_PROB] for row in rows[:2]]
    assert found == pytest.approx(batch_log_probs(models["llama"], pairs), rel=1e-5, abs=1e-5)


def test_a_model_with_a_state_that_cannot_be_cropped_reads_prompts_for_each_purpose() -> None:
    from transformers import Lfm2Config, Lfm2ForCausalLM

    torch.manual_seed(0)
    config = Lfm2Config(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, layer_types=["conv", "full_attention"],
    )  # fmt: skip
    model = sharpened(Lfm2ForCausalLM(config).eval())
    split = make_split(TEMPLATE, 3)
    rows = Measurer(model, TEMPLATE, GREEDY)(split.examples, split.encoded)
    wanted = batch_log_probs(model, split.encoded)
    assert [row.log_prob for row in rows] == pytest.approx(wanted, rel=1e-5)
    alone = [generate_batch(model, [i.prompt_ids], TEMPLATE, GREEDY)[0] for i in split.encoded]
    assert [row.text for row in rows] == [answer.text for answer in alone]
