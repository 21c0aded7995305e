from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torchmetrics.text import Perplexity as TorchPerplexity

from sizewise.errors import ConfigError
from sizewise.metrics import PERPLEXITY_PREFIX
from sizewise.metrics.base import ExampleMetric, build_metrics
from sizewise.metrics.efficiency import Efficiency
from sizewise.metrics.perplexity import Perplexity
from sizewise.record.predictions import WEIGHTED_BY

from .helpers import measure, prediction


def test_perplexity_equals_torchmetrics_over_the_corpus() -> None:
    generator = torch.Generator().manual_seed(0)
    reference = TorchPerplexity(ignore_index=-100)
    predictions = []
    for length in (1, 4, 9):
        logits = torch.randn(1, length, 11, generator=generator)
        targets = torch.randint(11, (1, length), generator=generator)
        reference.update(logits, targets)
        log_prob = float(logits.log_softmax(-1).gather(2, targets[..., None]).sum())
        predictions.append(prediction("", "x" * length, log_prob=log_prob, answer_tokens=length))
    metric = Perplexity()
    scores = measure(metric, *predictions)
    assert scores["perplexity"] == pytest.approx(float(reference.compute()), rel=1e-5)
    bits = -sum(p.log_prob for p in predictions) / math.log(2) / 14
    assert scores["bits_per_byte"] == pytest.approx(bits)
    rows = metric.per_example
    assert rows[1]["nll_per_token"] == pytest.approx(-predictions[1].log_prob / 4)
    assert rows[1]["perplexity"] == pytest.approx(math.exp(rows[1]["nll_per_token"]))


def test_bits_per_byte_counts_bytes_not_characters() -> None:
    scores = measure(Perplexity(), prediction("", "é", log_prob=-math.log(2) * 6))
    assert scores["bits_per_byte"] == pytest.approx(3.0)


def test_an_answer_without_bytes_and_a_hopeless_one_are_defined() -> None:
    scores = measure(Perplexity(), prediction("", "", log_prob=-1e6, answer_tokens=1))
    assert math.isnan(scores["bits_per_byte"])
    assert scores["perplexity"] == math.inf


def test_latency_is_divided_among_the_batch() -> None:
    slow = [prediction(str(i), latency=4.0, batch_size=2, new_tokens=10) for i in range(2)]
    fast = [prediction(str(i), latency=1.0, batch_size=4, new_tokens=5) for i in range(4)]
    scores = measure(Efficiency(), *slow, *fast)
    assert scores["latency_p50"] == pytest.approx(np.percentile([2, 2, 0.25, 0.25, 0.25, 0.25], 50))
    assert scores["latency_p95"] == pytest.approx(2.0)
    assert scores["batch_latency_p50"] == pytest.approx(1.0)
    assert scores["batch_latency_p95"] == pytest.approx(4.0)
    assert scores["examples_per_second"] == pytest.approx(6 / 5)
    assert scores["tokens_per_second"] == pytest.approx(40 / 5)


class Shout(ExampleMetric):
    name = "shout"

    def score(self, prediction: Any) -> dict[str, float]:
        return {"loud": float(prediction.text.isupper())}


def test_a_metric_of_ones_own_in_a_few_lines() -> None:
    metric = Shout()
    assert measure(metric, prediction("YES"), prediction("no")) == {"loud": 0.5}
    metric.reset()
    assert metric.per_example == metric.predictions == []


def test_chosen_options_merge_into_one_node(request: pytest.FixtureRequest) -> None:
    folder = request.config.rootpath / "conf" / "metric"
    nodes: dict[str, Any] = {}
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    assert {"icd10", "efficiency", "perplexity"} <= set(names)
    with initialize_config_dir(str(folder), version_base=None):
        for name in names:
            nodes |= {f"{name}": OmegaConf.to_container(compose(name))}
    for name, node in nodes.items():
        (key,) = node
        assert "_target_" in node[key], name
    built = build_metrics(nodes["icd10"] | nodes["efficiency"] | nodes["perplexity"])
    assert [metric.name for metric in built] == ["efficiency", "icd10", "perplexity"]


def test_bad_nodes_are_refused() -> None:
    with pytest.raises(ConfigError, match="no _target_"):
        build_metrics({"a": {"x": 1}})
    with pytest.raises(ConfigError, match=r"metric\.a .*cannot be built"):
        build_metrics({"a": {"_target_": "sizewise.metrics.icd10.Icd10", "colour": "red"}})
    with pytest.raises(ConfigError, match="no ExampleMetric"):
        build_metrics({"a": {"_target_": "collections.Counter"}})


def test_ratios_of_sums_are_means_weighted_by_the_named_field() -> None:
    """What the comparison does with single examples has to give the figure of the corpus."""
    rows = [
        prediction("a", "x" * n, log_prob=-float(n) - 0.3 * n % 2, answer_tokens=1 + n // 3)
        for n in (3, 17, 40)
    ]
    metric = Perplexity()
    scores = measure(metric, *rows)
    for name, field in WEIGHTED_BY.items():
        short = name.removeprefix(PERPLEXITY_PREFIX)
        assert name == f"{Perplexity.name}/{short}"
        weights = [getattr(row, field) for row in rows]
        values = [row[short] for row in metric.per_example]
        expected = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
        assert scores[short] == pytest.approx(expected)
