from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny_models import build_tiny

from sizewise.config.evaluation import GenerationConfig
from sizewise.config.model import ModelConfig
from sizewise.data.example import Example, Message
from sizewise.errors import ConfigError, EvaluationError
from sizewise.evaluation import candidate_set
from sizewise.evaluation.candidate_set import (
    CandidateSet,
    automatic_choice,
    calibrated,
    choose,
    encode_candidates,
    read_candidates,
)
from sizewise.evaluation.candidates import build_trie, candidate_log_probs, nodes_per_pass
from sizewise.evaluation.prompts import open_prompts
from sizewise.metrics.icd10 import Icd10
from sizewise.metrics.label import Label
from sizewise.metrics.perplexity import Perplexity
from sizewise.models.likelihood import answer_log_probs
from sizewise.record.predictions import PredictionStore

from .conftest import sharpened
from .helpers import EOS, VOCAB, Pair, StubSplit, evaluate, fails_above


@pytest.fixture(scope="module")
def candidates() -> list[list[int]]:
    """A few tokens with many common beginnings, one twice, one the beginning of another."""
    rng = random.Random(0)
    rows = [[rng.randint(10, 14) for _ in range(rng.randint(1, 5))] + [EOS] for _ in range(40)]
    return [*rows, rows[3], [10, 11], [10, 11, 12]]


@pytest.mark.parametrize("rows", [2048, 35])
@pytest.mark.parametrize(
    "architecture", ["qwen3", "llama", "mistral", "phi3", "gemma", "gemma2", "gemma3"]
)
def test_equal_to_each_candidate_alone(
    architecture: str, rows: int, split: StubSplit, candidates: list[list[int]]
) -> None:
    model = sharpened(build_tiny(architecture, VOCAB))
    prompts = [item.prompt_ids for item in split.encoded[:5]]
    found = candidate_log_probs(open_prompts(model, prompts, 0), candidates, rows)
    assert found.shape == (5, len(candidates))
    for row, prompt in zip(found, prompts, strict=True):
        pairs = [Pair(prompt, candidate) for candidate in candidates]
        expected = torch.tensor(answer_log_probs(model, pairs, 16), dtype=torch.float64)
        assert torch.allclose(row, expected, atol=1e-4, rtol=1e-5)
    assert found.std(dim=0).min() > 0, "the prompt makes no difference"


def test_an_encoder_decoder_model_scores_each_candidate_as_if_alone(
    seq2seq, candidates: list[list[int]]
) -> None:
    prompts = [[5, 6, 7, 1], [9, 1]]
    found = candidate_log_probs(open_prompts(seq2seq, prompts, 0), candidates, 60)
    pairs = [Pair(prompt, candidate) for prompt in prompts for candidate in candidates]
    expected = torch.tensor(answer_log_probs(seq2seq, pairs, 16), dtype=torch.float64)
    assert torch.allclose(found.flatten(), expected, atol=1e-4)


SEQUENCES = st.lists(st.lists(st.integers(10, 13), min_size=1, max_size=5), min_size=2, max_size=9)
PROMPTS = st.lists(st.lists(st.integers(5, 90), min_size=1, max_size=6), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def tiny() -> Any:
    return sharpened(build_tiny("qwen3", VOCAB))


@settings(max_examples=25, deadline=None)
@given(texts=SEQUENCES, prompts=PROMPTS, others=PROMPTS)
def test_every_reading_is_that_of_each_candidate_scored_alone(
    tiny: Any, texts: list[list[int]], prompts: list[list[int]], others: list[list[int]]
) -> None:
    answers = [[*text, EOS] for text in texts]
    trie, lengths = build_trie(answers), [len(answer) for answer in answers]

    def alone(asked: list[list[int]]) -> torch.Tensor:
        pairs = [Pair(prompt, answer) for prompt in asked for answer in answers]
        values = torch.tensor(answer_log_probs(tiny, pairs, 64), dtype=torch.float64)
        return values.view(len(asked), len(answers))

    prior = calibrated(tiny, CandidateSet(("",) * len(texts), trie), others, batch_size=3).prior
    assert prior is not None
    sums, mean = alone(prompts), alone(others).mean(0)
    assert torch.allclose(torch.tensor(prior, dtype=torch.float64), mean, atol=1e-4)
    assert CandidateSet(("",) * len(texts), trie).lengths == lengths
    found = choose(candidate_log_probs(open_prompts(tiny, prompts, 0), trie), lengths, prior)
    per_token = sums / torch.tensor(lengths)
    for row, choice in enumerate(found):
        # Equal candidates and near ties may go either way: the chosen one is a best one.
        assert sums[row, choice.index] >= sums[row].max() - 1e-4
        assert per_token[row, choice.per_token] >= per_token[row].max() - 1e-4
        gained = sums[row] - mean
        assert choice.calibrated is not None
        assert gained[choice.calibrated] >= gained.max() - 2e-4


def test_a_prior_is_taken_over_smaller_batches_where_memory_runs_out(causal, candidates) -> None:
    prompts = [[5], [6, 7], [8], [9, 4, 3]]
    asked = CandidateSet(("",) * len(candidates), build_trie(candidates))
    wanted = calibrated(causal, asked, prompts, batch_size=4).prior
    seen = fails_above(causal, 1)
    found = calibrated(causal, asked, prompts, batch_size=4).prior
    assert found == pytest.approx(wanted, abs=1e-4)
    assert max(seen) == 4


def test_prompts_of_one_token(causal, candidates) -> None:
    found = candidate_log_probs(open_prompts(causal, [[5], [9]], 0), candidates)
    pairs = [Pair([prompt], candidate) for prompt in (5, 9) for candidate in candidates]
    expected = torch.tensor(answer_log_probs(causal, pairs, 16), dtype=torch.float64)
    assert torch.allclose(found.flatten(), expected, atol=1e-4)


def test_the_best_candidate_and_its_share() -> None:
    log_probs = torch.tensor([[-3.0, -1.0, -2.0], [-1.0, -1.0, -9.0]], dtype=torch.float64)
    first, second = choose(log_probs, [1, 1, 1])
    assert first.index == 1
    assert first.probability == pytest.approx(np.exp(-1) / np.exp([-3, -1, -2]).sum())
    assert second.index == 0
    assert second.probability < 0.5


def test_a_trie_shares_beginnings() -> None:
    trie = build_trie([[1, 2, 9], [1, 3, 9], [1, 2, 4, 9]])
    assert len(trie.tokens) == 1 + 7
    assert trie.inner.tolist() == [0, 1, 2, 3, 6]
    nodes, extra = trie.slices(3)[1]
    assert (nodes.tolist(), extra) == ([0, 1, 2, 3, 6], 3)
    visible = trie.visible(nodes)
    assert visible.tolist()[4] == [True, True, False, False, True]


def test_length_and_what_is_always_likely_are_taken_out() -> None:
    """The first candidate is short, the second likely whatever is asked."""
    log_probs = torch.tensor([[-4.0, -5.0, -6.0]], dtype=torch.float64)
    (plain,) = choose(log_probs, [1, 5, 3])
    assert (plain.index, plain.per_token, plain.calibrated) == (0, 1, None)
    (calibrated,) = choose(log_probs, [1, 5, 3], prior_C=[-4.0, -4.0, -9.0])
    assert calibrated.calibrated == 2
    assert calibrated.named(("a", "b", "c")) == {
        "candidate": "a",
        "candidate_probability": pytest.approx(0.665, abs=1e-3),
        "candidate_per_token": "b",
        "candidate_calibrated": "c",
    }


def test_what_cannot_be_scored(causal) -> None:
    with pytest.raises(EvaluationError, match="candidate"):
        candidate_log_probs(open_prompts(causal, [[5]], 0), [])
    with pytest.raises(EvaluationError, match="no tokens"):
        open_prompts(causal, [[]], 0)


def test_evaluation_keeps_the_best_candidate(causal, split, template, tmp_path) -> None:
    texts = read_candidates("train", split.examples)
    chosen = encode_candidates(texts, template, ())
    assert texts == tuple(f"E11.{i}" for i in range(8))
    metrics = [Icd10(), Icd10(answer="candidate")]
    store = PredictionStore(tmp_path / "p.jsonl", "key")
    greedy = GenerationConfig(max_new_tokens=3)
    result = evaluate(causal, split, template, greedy, metrics, store, candidates=chosen)
    assert result.scores["icd10_candidate/prefix3"] == 1.0
    assert result.scores["icd10/prefix3"] == 0.0
    for prediction, item in zip(result.predictions, split.encoded, strict=True):
        pairs = [Pair(item.prompt_ids, template.answer_ids((), text)) for text in texts]
        expected = torch.tensor(answer_log_probs(causal, pairs, 8))
        assert prediction.candidate == texts[int(expected.argmax())]
        share = float(expected.softmax(0).max())
        assert prediction.candidate_probability == pytest.approx(share, abs=1e-4)


def test_candidates_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "codes.txt").write_text("I10\n\nE11.9\nI10\n")
    assert read_candidates(str(tmp_path / "codes.txt"), ()) == ("E11.9", "I10")
    with pytest.raises(ConfigError, match="neither `auto`, `train` nor"):
        read_candidates(str(tmp_path / "none.txt"), ())
    with pytest.raises(ConfigError, match="no candidate"):
        read_candidates("train", ())


def labelled(*answers: str) -> list[Example]:
    return [Example((Message("user", f"q{i}"),), a, f"g{i}") for i, a in enumerate(answers)]


def test_reasoning_is_no_part_of_a_candidate() -> None:
    train = labelled("<think>one</think> A", "<think>other</think> A", "B")
    assert read_candidates("train", train) == ("A", "B")


def test_closed_answer_sets_are_compared_by_themselves_and_nothing_else() -> None:
    model, few = ModelConfig(name="m", path="p"), labelled("A", "B", "A")
    assert automatic_choice([Label(), Perplexity()], few, model) == ("train", None)
    assert automatic_choice([Icd10()], few, model) == ("train", None)
    assert automatic_choice([Perplexity()], few, model) == (None, None)


def test_too_many_answers_are_not_compared_without_a_word() -> None:
    model, many = ModelConfig(name="m", path="p"), labelled(*map(str, range(513)))
    chosen, warning = automatic_choice([Label()], many, model)
    assert chosen is None
    assert warning is not None
    assert "513 different answers" in warning
    assert "evaluation.candidates=train" in warning
    assert automatic_choice([Icd10(answer="candidate")], many, model) == ("train", None)
    flash = ModelConfig(name="m", path="p", attn_implementation="flash_attention_2")
    chosen, warning = automatic_choice([Label()], labelled("A", "B"), flash)
    assert chosen is None
    assert "attn_implementation=sdpa" in str(warning)


def test_what_calibration_has_read_is_not_read_again(
    tiny: Any, candidates: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validation prompts calibrate and are answered next; others of a batch are read as ever."""
    every, trie = [[5], [6, 7], [8, 9, 5], [9, 4, 3], [7, 7]], build_trie(candidates)
    asked = CandidateSet(("",) * len(candidates), trie)
    wanted = asked.behind(open_prompts(tiny, every, 0), [EOS])
    known = calibrated(tiny, asked, every[1:4], batch_size=2, stops=[EOS])
    read: list[int] = []
    original = candidate_set.score_candidates

    def counted(prompts: Any, *rest: Any) -> Any:
        read.append(len(prompts.ids))
        return original(prompts, *rest)

    monkeypatch.setattr(candidate_set, "score_candidates", counted)
    found = known.behind(open_prompts(tiny, every, 0), [EOS])
    assert read == [2]
    assert torch.allclose(found.log_probs, wanted.log_probs, atol=1e-4)
    assert [k.tokens for k in found.known] == [k.tokens for k in wanted.known]
    assert any(k.tokens for k in found.known)
    known.behind(open_prompts(tiny, every[1:4], 0), [EOS])
    assert read == [2]


@given(prompts=st.integers(1, 512), vocabulary=st.integers(100, 300_000))
def test_a_pass_over_the_tree_is_long_enough_and_bounded_in_memory(
    prompts: int, vocabulary: int
) -> None:
    nodes = nodes_per_pass(prompts, vocabulary)
    assert nodes * prompts >= 512 or nodes >= 64
    assert nodes * prompts * vocabulary <= max(2**24, (1024 + 512) * vocabulary)
    small = nodes_per_pass(64, 1536)
    assert small == 64
    assert len(build_trie([[1, 2, 3], [1, 4]]).slices(small)) == 1
