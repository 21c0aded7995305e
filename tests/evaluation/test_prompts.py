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
from sizewise.evaluation.candidate_set import encode_candidates
from sizewise.evaluation.candidates import candidate_log_probs
from sizewise.evaluation.generate import generate_batch, generate_behind
from sizewise.evaluation.prompts import Beginning, SeparatePrompts, open_prompts
from sizewise.models.adapter.wrapping import base_of
from sizewise.models.likelihood import batch_log_probs

from .conftest import sharpened
from .helpers import EOS, VOCAB, StubTemplate, byte_tokenizer, make_split

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


def tokens_read(model: Any) -> list[int]:
    """Let a model note how many tokens each forward pass of its body reads in every row."""
    seen: list[int] = []
    inner = base_of(model)
    body = inner.get_encoder() if inner.config.is_encoder_decoder else inner.base_model

    def hook(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        seen.append(kwargs["input_ids"].shape[1])

    body.register_forward_pre_hook(hook, with_kwargs=True)
    return seen


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
    shared = open_prompts(model, prompts, 0)

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


def rows_and_tokens_read(model: Any) -> list[tuple[int, int]]:
    """Let a model note the shape of what its body reads in each pass."""
    seen: list[tuple[int, int]] = []

    def hook(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        seen.append(tuple(kwargs["input_ids"].shape))

    base_of(model).base_model.register_forward_pre_hook(hook, with_kwargs=True)
    return seen


BEGINS = list(range(10, 30))


@pytest.mark.parametrize("drafts", [True, False])
def test_a_common_beginning_is_read_in_one_row(drafts: bool) -> None:
    model = sharpened(build_tiny("qwen3", VOCAB))
    seen = rows_and_tokens_read(model)
    prompts = open_prompts(model, [[*BEGINS, 3], [*BEGINS, 4, 5, 6], [*BEGINS, 7]], 0)
    if drafts:
        prompts.log_probs([[8], [9], [8, 9]])
    texts = generate_behind(prompts, TEMPLATE, GREEDY)
    assert seen[:2] == [(1, 20), (3, 2)]
    assert all(tokens <= 2 for _, tokens in seen[2:])
    alone = [generate_batch(model, [ids], TEMPLATE, GREEDY)[0] for ids in prompts.ids]
    assert [a.token_ids for a in texts] == [a.token_ids for a in alone]


def test_prompts_that_are_all_the_same_are_read_once() -> None:
    model = sharpened(build_tiny("qwen3", VOCAB))
    seen = rows_and_tokens_read(model)
    texts = generate_behind(open_prompts(model, [BEGINS] * 3, 0), TEMPLATE, GREEDY)
    assert seen[:2] == [(1, 19), (3, 1)]
    assert {a.token_ids for a in texts} == {
        generate_batch(model, [BEGINS], TEMPLATE, GREEDY)[0].token_ids
    }


@settings(max_examples=20, deadline=None)
@given(batches=st.lists(st.tuples(BEGINNING, PROMPTS), min_size=2, max_size=4), whole=BEGINNING)
def test_batches_after_the_first_answer_as_if_nothing_had_been_read(
    models: dict[str, Any], batches: list[tuple[list[int], list[list[int]]]], whole: list[int]
) -> None:
    model, beginning = models["llama"], Beginning()
    for part, prompts in batches:
        ids = [[*whole, *part, *prompt] for prompt in prompts]
        texts = generate_behind(open_prompts(model, ids, 0, beginning), TEMPLATE, GREEDY)
        alone = [generate_batch(model, [each], TEMPLATE, GREEDY)[0] for each in ids]
        assert [a.token_ids for a in texts] == [a.token_ids for a in alone]


def test_what_was_read_of_one_batch_is_read_no_more() -> None:
    model = sharpened(build_tiny("qwen3", VOCAB))
    seen = rows_and_tokens_read(model)
    measure = Measurer(model, TEMPLATE, GREEDY)
    items = [Encoded([*BEGINS, last], [8, EOS]) for last in (3, 4, 5, 6)]
    examples = make_split(TEMPLATE, 4).examples
    first = measure(examples[:3], items[:3])
    assert seen[0] == (1, 20)
    before = len(seen)
    second = measure(examples[3:], items[3:])
    assert all(tokens <= 2 for _, tokens in seen[before:])
    wanted = batch_log_probs(model, items)
    assert [row.log_prob for row in (*first, *second)] == pytest.approx(wanted, rel=1e-5)
    del seen[:]
    Measurer(model, TEMPLATE, GREEDY)(examples[3:], items[3:])
    assert seen[0] == (1, 20), "another measurer may be asked of other weights"


def dynamic_rope() -> Any:
    model = build_tiny("llama", VOCAB)
    model.model.rotary_emb.rope_type = "dynamic"
    return model


def without_positions() -> Any:
    from transformers import MptConfig, MptForCausalLM

    return MptForCausalLM(MptConfig(vocab_size=VOCAB, d_model=32, n_heads=2, n_layers=1)).eval()


def flash() -> Any:
    model = build_tiny("llama", VOCAB)
    model.config._attn_implementation = "flash_attention_2"
    return model


def int8() -> Any:
    from bitsandbytes.nn import Int8Params

    model = build_tiny("llama", VOCAB)
    projection = model.model.layers[0].mlp.down_proj
    projection.weight = Int8Params(projection.weight.data, requires_grad=False)
    return model


@pytest.mark.parametrize(
    "make", [lambda: build_tiny("gemma3", VOCAB), dynamic_rope, without_positions, flash, int8]
)
def test_padding_stays_in_front_where_a_model_would_count_it(make: Any) -> None:
    """Windows and biases by distance count columns; int8 and some positions depend on the rows."""
    prompts = [[*BEGINS, 3], [*BEGINS, 4, 5, 6]]
    assert open_prompts(make(), prompts, 0).mask.tolist() == [[0, 0] + [1] * 21, [1] * 23]
    shared = open_prompts(build_tiny("llama", VOCAB), prompts, 0)
    assert shared.mask.tolist() == [[1] * 20 + [0, 0, 1], [1] * 23]


@pytest.mark.parametrize("prompts", [[BEGINS], [[10, 3, 4, 5, 6, 7, 8, 9] * 2, [10, 4]]])
def test_a_beginning_that_saves_little_is_not_read_apart(prompts: list[list[int]]) -> None:
    model = build_tiny("llama", VOCAB)
    seen = rows_and_tokens_read(model)
    open_prompts(model, prompts, 0).log_probs([[8]] * len(prompts))
    assert [rows for rows, _ in seen] == [len(prompts)] * 2


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
    seen = tokens_read(model)
    rows = measurer(model, split)(split.examples, split.encoded)
    assert len([length for length in seen if length >= longest - 1]) == 1
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
