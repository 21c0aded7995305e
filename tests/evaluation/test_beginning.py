"""What all prompts begin with is read once, and changes no text and no likelihood."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny_models import build_tiny

from sizewise.config.evaluation import GenerationConfig
from sizewise.data.tokens.table import Encoded
from sizewise.evaluation.answer import Measurer
from sizewise.evaluation.beginning import Beginning
from sizewise.evaluation.candidate_set import CandidateSet, calibrated
from sizewise.evaluation.candidates import build_trie
from sizewise.evaluation.generate import generate_batch, generate_behind
from sizewise.evaluation.predict import predict
from sizewise.evaluation.prompts import open_prompts
from sizewise.models.likelihood import batch_log_probs
from sizewise.record.predictions import PredictionStore

from .conftest import sharpened
from .helpers import EOS, VOCAB, StubSplit, StubTemplate, byte_tokenizer, make_split, passes

GREEDY = GenerationConfig(max_new_tokens=5)
SAMPLING = GenerationConfig(max_new_tokens=5, do_sample=True, temperature=0.9, seed=3)
PENALISED = GenerationConfig(max_new_tokens=5, repetition_penalty=1.3)
TEMPLATE = StubTemplate(byte_tokenizer(), stop_ids=(EOS, *range(180, 240)))
BEGINS = list(range(10, 30))
ASKED = [[*BEGINS, 3], [*BEGINS, 4, 5, 6], [*BEGINS, 7], [*BEGINS, 8, 9, 3, 4, 5, 6]]
SMALL = {"vocab_size": VOCAB, "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2}


def made(kind: str, **options: Any) -> Any:
    """A random model of one of transformers' classes."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**options)
    config._attn_implementation = "eager"
    name = {"GPT2": "GPT2LMHeadModel", "MllamaText": "MllamaForCausalLM"}.get(kind)
    return sharpened(getattr(transformers, name or f"{kind}ForCausalLM")(config).eval())


# Learned positions; ALiBi by the mask; rotary parts of heads with one key for all; experts with
# compressed keys; layers that keep nothing, as no picture is shown.
OTHERS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: made("GPT2", vocab_size=VOCAB, n_embd=32, n_head=2, n_layer=2),
    "falcon": lambda: made("Falcon", **SMALL, alibi=True, new_decoder_architecture=False),
    "phi": lambda: made("Phi", **SMALL, intermediate_size=64),
    "deepseek_v3": lambda: made(
        "DeepseekV3", **SMALL, intermediate_size=64, moe_intermediate_size=16, n_routed_experts=4,
        num_experts_per_tok=2, n_group=1, topk_group=1, q_lora_rank=8, kv_lora_rank=8,
        qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=16, num_key_value_heads=2,
        first_k_dense_replace=1,
    ),
    "mllama": lambda: made(
        "MllamaText", **SMALL, intermediate_size=64, num_key_value_heads=2, pad_token_id=0,
        bos_token_id=1, eos_token_id=1, cross_attention_layers=[1],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {name: sharpened(build_tiny(name, VOCAB)) for name in ("llama", "qwen3")}


def asked(prompts: list[list[int]]) -> StubSplit:
    examples = make_split(TEMPLATE, len(prompts)).examples
    return StubSplit([Encoded(ids, [8, EOS]) for ids in prompts], examples)


TOKENS = st.integers(2, 90)
ROWS = st.lists(st.lists(TOKENS, min_size=1, max_size=12), min_size=2, max_size=8)


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(["llama", "qwen3"]), begins=st.lists(TOKENS, max_size=20), rows=ROWS,
    size=st.integers(1, 4), decoding=st.sampled_from([GREEDY, SAMPLING, PENALISED]),
)  # fmt: skip
def test_every_batch_answers_as_if_nothing_were_shared(
    models: dict[str, Any], name: str, begins: list[int], rows: list[list[int]], size: int,
    decoding: GenerationConfig,
) -> None:  # fmt: skip
    model, every = models[name], [[*begins, *row] for row in rows]
    beginning = Beginning.of(model, every)
    for start in range(0, len(every), size):
        ids = every[start : start + size]
        names = [str(start + i) for i in range(len(ids))]
        prompts = open_prompts(model, ids, 0, beginning)
        texts = generate_behind(prompts, TEMPLATE, decoding, names)
        for answer, each, own in zip(texts, ids, names, strict=True):
            alone = generate_batch(model, [each], TEMPLATE, decoding, [own])[0]
            assert answer.token_ids == alone.token_ids
        wanted = batch_log_probs(model, [Encoded(each, [8, EOS]) for each in ids])
        assert prompts.log_probs([[8, EOS]] * len(ids)) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("name", OTHERS)
def test_other_architectures(name: str) -> None:
    model = OTHERS[name]()
    seen = passes(model)
    beginning = Beginning.of(model, ASKED)
    prompts = open_prompts(model, ASKED, 0, beginning)
    found = prompts.log_probs([[8, EOS]] * 4)
    assert seen[0] == (1, 20)
    alone = [batch_log_probs(model, [Encoded(ids, [8, EOS])])[0] for ids in ASKED]
    assert found == pytest.approx(alone, rel=1e-4)
    going_on = Measurer(model, TEMPLATE, GREEDY, beginning=beginning)
    rows = going_on(asked(ASKED).examples, asked(ASKED).encoded)
    texts = [generate_batch(model, [ids], TEMPLATE, GREEDY)[0].text for ids in ASKED]
    assert [row.text for row in rows] == texts


@pytest.mark.parametrize("decoding", [GREEDY, SAMPLING])
def test_it_is_read_once_for_all_batches(decoding: GenerationConfig, tmp_path: Path) -> None:
    model = sharpened(build_tiny("qwen3", VOCAB))
    seen, split = passes(model), asked(ASKED)
    store = PredictionStore(tmp_path / "p.jsonl", "key")
    predict(model, split, TEMPLATE, decoding, store, 1, timed=False)  # type: ignore[arg-type]
    assert [shape for shape in seen if shape[1] >= len(BEGINS)] == [(1, 20)]


def test_decoding_goes_on_right_behind_it() -> None:
    """No pass is made for what ``generate`` reads anyway."""
    model = sharpened(build_tiny("qwen3", VOCAB))
    seen = passes(model)
    prompts = open_prompts(model, ASKED[:3], 0, Beginning.of(model, ASKED))
    generate_behind(prompts, TEMPLATE, GREEDY)
    assert seen[:2] == [(1, 20), (3, 3)]
    assert set(seen[2:]) <= {(3, 1)}


def test_where_answers_are_drafted_whole_prompts_are_timed(tmp_path: Path) -> None:
    model = sharpened(build_tiny("qwen3", VOCAB))
    seen, split = passes(model), asked(ASKED)
    store = PredictionStore(tmp_path / "p.jsonl", "key")
    found = predict(model, split, TEMPLATE, GREEDY, store, 4)  # type: ignore[arg-type]
    assert (4, 26) in seen
    assert all(row.latency > 0 for row in found.predictions)


@pytest.mark.parametrize("message", ["out of memory", "CUDA error: unknown error"])
@pytest.mark.parametrize("decoding", [GREEDY, SAMPLING])
def test_what_a_failure_left_half_read_is_read_again(
    message: str, decoding: GenerationConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    model, split = sharpened(build_tiny("qwen3", VOCAB)), asked(ASKED)
    wanted = [generate_batch(model, [ids], TEMPLATE, decoding, [e.id])[0].text
              for ids, e in zip(ASKED, split.examples, strict=True)]  # fmt: skip
    failures = [torch.OutOfMemoryError(message) if "memory" in message else RuntimeError(message)]
    last, values = model.model.layers[-1].self_attn.v_proj, []

    def fail(module: Any, args: Any) -> None:
        values.append(args[0].shape)
        if failures:
            raise failures.pop()

    last.register_forward_pre_hook(fail)
    store = PredictionStore(tmp_path / "p.jsonl", "key")
    found = predict(model, split, TEMPLATE, decoding, store, 2, 0, timed=False)  # type: ignore[arg-type]
    assert [tuple(shape[:2]) for shape in values[:2]] == [(1, 20)] * 2
    assert [row.text for row in found.predictions] == wanted


def test_a_beginning_keeps_no_gradients(models: dict[str, Any]) -> None:
    beginning = Beginning.of(models["llama"], ASKED)
    prompts = open_prompts(models["llama"], ASKED, 0, beginning)
    assert any(p.requires_grad for p in models["llama"].parameters())
    going_on = prompts.going_on([1, 3], [[8], []])
    assert not any(k.requires_grad for c in (beginning.cache, going_on.cache) for k, *_ in c)


def test_a_resumed_evaluation_shares_what_an_undisturbed_one_does(tmp_path: Path) -> None:
    model = sharpened(build_tiny("qwen3", VOCAB))
    seen, split = passes(model), asked(ASKED)

    def shapes(store: PredictionStore) -> list[tuple[int, int]]:
        del seen[:]
        predict(model, split, TEMPLATE, SAMPLING, store, 2, timed=False)  # type: ignore[arg-type]
        return list(seen)

    whole = PredictionStore(tmp_path / "whole.jsonl", "key")
    every = shapes(whole)
    part = PredictionStore(tmp_path / "part.jsonl", "key")
    part.append(whole.read()[:2])
    rest = shapes(part)
    assert rest[0] == every[0] == (1, 20)
    assert set(rest) <= set(every)
    assert [p.text for p in part.read()] == [p.text for p in whole.read()]


def test_candidates_are_calibrated_behind_it() -> None:
    model = sharpened(build_tiny("qwen3", VOCAB))
    candidates = CandidateSet(("a", "b"), build_trie([[8, EOS], [9, 7, EOS]]))
    alone = [calibrated(model, candidates, [ids], 1).prior for ids in ASKED]
    seen = passes(model)
    found = calibrated(model, candidates, ASKED, 2).prior
    assert [shape for shape in seen if shape[1] >= len(BEGINS)] == [(1, 20)]
    mean = torch.tensor(alone).mean(0)
    assert torch.tensor(found) == pytest.approx(mean, rel=1e-5)


def encoder_decoder() -> Any:
    model = build_tiny("t5", VOCAB)
    model.config.decoder_start_token_id = model.config.pad_token_id = 0
    return model


def dynamic_rope() -> Any:
    model = build_tiny("llama", VOCAB)
    model.model.rotary_emb.rope_type = "dynamic"
    return model


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


def somebodys_own() -> Any:
    own = type("Own", (transformers.LlamaForCausalLM,), {"__module__": "modeling_own"})
    return own(build_tiny("llama", VOCAB).config).eval()


ALONE: dict[str, Callable[[], Any]] = {
    "gemma3": lambda: build_tiny("gemma3", VOCAB),
    "gpt_neo": lambda: made(
        "GPTNeo", vocab_size=VOCAB, hidden_size=32, num_heads=2, num_layers=2, window_size=8,
        attention_types=[[["global", "local"], 1]],
    ),
    "mpt": lambda: made("Mpt", vocab_size=VOCAB, d_model=32, n_heads=2, n_layers=1),
    "bloom": lambda: made("Bloom", vocab_size=VOCAB, hidden_size=32, n_head=2, n_layer=1),
    "t5": encoder_decoder,
    "dynamic_rope": dynamic_rope,
    "flash": flash,
    "int8": int8,
    "somebodys_own": somebodys_own,
}  # fmt: skip


@pytest.mark.parametrize("name", ALONE)
def test_nothing_is_shared_where_padding_would_count(name: str) -> None:
    """Windows and biases by distance count columns; int8 and some positions depend on the rows."""
    model = ALONE[name]()
    assert not Beginning.of(model, ASKED)
    if name not in ("flash", "int8"):  # kernels for GPUs
        prompts = open_prompts(model, ASKED, 0, Beginning.of(model, ASKED))
        wanted = batch_log_probs(model, [Encoded(ids, [8, EOS]) for ids in ASKED])
        assert prompts.log_probs([[8, EOS]] * 4) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(
    ("prompts", "shared"),
    [
        (ASKED, 20),
        ([BEGINS, BEGINS], 19),  # its last token is read with what follows
        ([BEGINS, [*BEGINS, 3]], 19),
        ([BEGINS], 0),  # nobody to share it with
        ([], 0),
        ([[10, *BEGINS], [10, *reversed(BEGINS)]], 0),  # 1 of 21 tokens
        ([[10, 11, 12], [10, 11, 13]], 2),
    ],
)
def test_what_prompts_begin_with(
    models: dict[str, Any], prompts: list[list[int]], shared: int
) -> None:
    assert len(Beginning.of(models["llama"], prompts).ids) == shared


def test_prompts_that_begin_otherwise_are_read_on_their_own(models: dict[str, Any]) -> None:
    beginning = Beginning.of(models["llama"], ASKED)
    for other in ([*BEGINS[1:], 3], BEGINS):
        assert not open_prompts(models["llama"], [ASKED[0], other], 0, beginning).beginning
    left, right = open_prompts(models["llama"], ASKED[:2], 0, beginning).mask.tolist()
    assert (left, right) == ([1] * 20 + [0, 0, 1], [1] * 23)
