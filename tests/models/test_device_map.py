"""``model.device_map``: a base over several devices answers as it does on one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sizewise.composition.compose import compose_run
from sizewise.config.model import LoraConfig, ModelConfig, QuantizationConfig
from sizewise.config.training import OptimizerConfig
from sizewise.errors import ModelError
from sizewise.evaluation.prompts import open_prompts
from sizewise.models import base as bases
from sizewise.models.adapter.attach import attach_adapter, load_adapter, save_adapter
from sizewise.models.base import load_base, placement
from sizewise.models.head import answer_logits
from sizewise.models.plan.planner import Workload, plan_memory

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
PLANTED = {
    "model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk",
    "model.norm": "disk", "model.rotary_emb": "cpu", "lm_head": "disk",
}  # fmt: skip
BATCH = {
    "input_ids": torch.tensor([[5, 6, 7, 8], [9, 6, 5, 8]]),
    "attention_mask": torch.ones(2, 4, dtype=torch.long),
    "labels": torch.tensor([[-100, -100, 7, 8], [-100, -100, 5, 8]]),
}


def test_only_a_base_on_a_gpu_is_spread() -> None:
    spread = ModelConfig(name="x", path="x", device_map="auto")
    assert placement(spread, CUDA) == "auto"
    assert placement(spread, CPU) == {"": "cpu"}
    assert placement(ModelConfig(name="x", path="x"), CUDA) == {"": "cuda:0"}


def test_a_spread_base_gives_the_same_logits(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two places, one of which holds no weight of its own between calls."""
    model = tiny("llama")
    expected = answer_logits(load_base(model), BATCH)
    monkeypatch.setattr(bases, "placement", lambda *_: PLANTED)
    base = load_base(model)
    assert set(base.hf_device_map.values()) == {"cpu", "disk"}
    assert torch.equal(answer_logits(base, BATCH), expected)
    written = base.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=4, do_sample=False)
    assert written.shape[1] > 3
    prompts = open_prompts(base, [[5, 6, 7], [9, 6]], 0)
    monkeypatch.undo()
    one = open_prompts(load_base(model), [[5, 6, 7], [9, 6]], 0)
    assert torch.equal(prompts.logits([[8], [8]]), one.logits([[8], [8]]))


def test_an_adapter_is_refused_where_it_would_silently_do_nothing(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama")
    save_adapter(attach_adapter(load_base(model), LoraConfig(r=2), model, seed=0), tmp_path)
    monkeypatch.setattr(bases, "placement", lambda *_: PLANTED)
    with pytest.raises(ModelError, match="more GPUs, or quantization=nf4"):
        load_adapter(load_base(model), tmp_path)


@pytest.mark.parametrize("method", ["none", "nf4"])
def test_the_plan_is_that_of_one_of_several_cards(method: str) -> None:
    few = ["model.architecture.num_layers=12", "model.architecture.vocab_size=32000"]
    model = compose_run(["model=qwen3_8b", *few]).model
    adamw = OptimizerConfig(target="torch.optim.AdamW")
    storage = QuantizationConfig(method=method)

    def plan(**cards: int) -> Any:
        work = Workload(1, 24, 8, 8, 1, **cards)
        return plan_memory(model, storage, LoraConfig(), adamw, work, "cuda", False)

    one, divided = plan(), plan(training_cards=4)
    for part in ("weights", "adapters", "gradients", "optimizer"):
        assert divided.training[part] == pytest.approx(one.training[part] / 4, rel=0.01)
    assert divided.training["activations"] == one.training["activations"]
    assert 0 < divided.training["gathered"] < one.training["weights"] / 2
    assert divided.generation == one.generation, "answered on one card"
    spread = plan(answering_cards=4)
    assert one.generation["weights"] / 4 < spread.generation["weights"]
    assert spread.generation["weights"] < one.generation["weights"] / 3
    assert spread.generation_peak < one.generation_peak
    assert spread.training == one.training
