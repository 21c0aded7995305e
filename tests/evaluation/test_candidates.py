from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tiny_models import build_tiny

from sizewise.config.evaluation import GenerationConfig
from sizewise.errors import ConfigError, EvaluationError
from sizewise.evaluation.candidate_set import choose, encode_candidates, read_candidates
from sizewise.evaluation.candidates import build_trie, candidate_log_probs
from sizewise.metrics.icd10 import Icd10
from sizewise.models.likelihood import answer_log_probs
from sizewise.record.predictions import PredictionStore

from .conftest import sharpened
from .helpers import EOS, VOCAB, Pair, StubSplit, StubTemplate, evaluate


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
    found = candidate_log_probs(model, prompts, candidates, rows_per_pass=rows)
    assert found.shape == (5, len(candidates))
    for row, prompt in zip(found, prompts, strict=True):
        pairs = [Pair(prompt, candidate) for candidate in candidates]
        expected = torch.tensor(answer_log_probs(model, pairs, 16), dtype=torch.float64)
        assert torch.allclose(row, expected, atol=1e-4, rtol=1e-5)
    assert found.std(dim=0).min() > 0, "the prompt makes no difference"


def test_prompts_of_one_token(causal, candidates) -> None:
    found = candidate_log_probs(causal, [[5], [9]], candidates)
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


def test_what_cannot_be_scored(causal, seq2seq, template: StubTemplate) -> None:
    with pytest.raises(EvaluationError, match="causal"):
        candidate_log_probs(seq2seq, [[5]], [[6]])
    with pytest.raises(EvaluationError, match="candidate"):
        candidate_log_probs(causal, [[5]], [])
    with pytest.raises(EvaluationError, match="no tokens"):
        candidate_log_probs(causal, [[]], [[6]])


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
