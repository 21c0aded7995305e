from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from sizewise.config.evaluation import GenerationConfig
from sizewise.config.model import ModelConfig, QuantizationConfig
from sizewise.data.example import Example
from sizewise.errors import ConfigError
from sizewise.evaluation.score import score_predictions
from sizewise.metrics.base import ExampleMetric
from sizewise.metrics.efficiency import Efficiency
from sizewise.metrics.icd10 import Icd10
from sizewise.metrics.perplexity import Perplexity
from sizewise.models.base import load_base
from sizewise.record.predictions import Prediction, PredictionStore, read_predictions

from .helpers import evaluate, make_split

GREEDY = GenerationConfig(max_new_tokens=6)


class TrainingSize(ExampleMetric):
    name = "training"
    size = 0

    def set_context(self, train_examples: Sequence[Example]) -> None:
        self.size = len(train_examples)

    def score(self, prediction: Prediction) -> dict[str, float]:
        return {"size": float(self.size)}


def test_scores_and_final_file(causal, split, template, tmp_path: Path) -> None:
    store = PredictionStore(tmp_path / "base.test.jsonl", "key")
    metrics = [Icd10(), Perplexity(), Efficiency(), TrainingSize()]
    result = evaluate(
        causal, split, template, GREEDY, metrics, store, train_examples=split.examples
    )
    assert result.examples == 8
    assert result.scores["training/size"] == 8
    assert result.scores["icd10/exact_match"] == 0
    assert result.scores["efficiency/tokens_per_second"] > 0
    stored = read_predictions(result.path)
    assert list(map(repr, stored)) == list(map(repr, result.predictions))  # NaN times included
    assert [p.id for p in stored] == [e.id for e in split.examples]
    nll = sum(p.scores["perplexity/nll"] for p in stored)
    tokens = sum(p.answer_tokens for p in stored)
    assert result.scores["perplexity/perplexity"] == pytest.approx(math.exp(nll / tokens))


def test_scoring_again_takes_over_new_metrics_and_strata(
    causal, split, template, tmp_path: Path
) -> None:
    path = tmp_path / "base.test.jsonl"
    evaluate(causal, split, template, GREEDY, [Icd10()], PredictionStore(path, "key"))
    other = make_split(template, band="rare")
    result = evaluate(causal, other, template, GREEDY, [Perplexity()], PredictionStore(path, "key"))
    first = read_predictions(path)[0]
    assert repr(first) == repr(result.predictions[0])
    assert first.strata == {"band": "rare"}
    assert not any(name.startswith("icd10/") for name in first.scores)


def test_two_metrics_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="perplexity is chosen twice"):
        score_predictions([], [Perplexity(), Perplexity()])


@pytest.mark.parametrize("method", ["none", "nf4", "int8"])
def test_gradients_are_the_same_before_and_after(
    method, causal, split, template, tmp_path: Path
) -> None:
    causal.save_pretrained(tmp_path)
    quantization = QuantizationConfig(method=method, compute_dtype="float32")
    base = load_base(ModelConfig(name="t", path=str(tmp_path), dtype="float32"), quantization)
    torch.manual_seed(0)
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    before = gradients(model, split.encoded[1].prompt_ids)
    store = PredictionStore(tmp_path / "p.jsonl", "key")
    evaluate(model, split, template, GREEDY, [], store)
    after = gradients(model, split.encoded[1].prompt_ids)
    assert len(before) == 8
    for name, gradient in before.items():
        assert float(gradient.abs().max()) > 0
        assert torch.equal(gradient, after[name]), name


def gradients(model: torch.nn.Module, row: list[int]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    tokens = torch.tensor([row])
    model(input_ids=tokens, labels=tokens).loss.backward()
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    return {name: copy.deepcopy(parameter.grad) for name, parameter in named}
