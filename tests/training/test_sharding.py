"""``trainer.strategy=fsdp``: a base divided among processes, trained as if it were whole."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.training.jobs import exit_code, rank_environments, start
from tests.training.toys import adapted, tiny_base

from sizewise.models.adapter.attach import load_adapter

pytestmark = pytest.mark.e2e
SPLIT = {"batch_size": 2, "accumulate": 1, "devices": 2, "strategy": "fsdp"}


def fit_in_two(run_dir: Path, kill: tuple[Any, ...] = (), **options: Any) -> list[int]:
    ranks = [
        start(run_dir, kill, 0.0, environment, **{**SPLIT, **options})
        for environment in rank_environments(2)
    ]
    return [exit_code(rank) for rank in ranks]


@pytest.mark.parametrize(("storage", "tolerance"), [("fp32", 1e-5), ("nf4", 1e-5), ("bf16", 1e-3)])
def test_fsdp_over_two_processes_has_the_losses_of_one(
    tmp_path: Path, storage: str, tolerance: float
) -> None:
    """The one that trains a bf16 base differs as sums of bf16 products in other batches do."""
    two, one = tmp_path / "two", tmp_path / "one"
    options: dict[str, Any] = {"storage": storage, "validation": 9}
    if storage == "bf16":
        options["precision"] = "bf16-mixed"
    assert fit_in_two(two, **options) == [0, 0]
    assert not (two / "weights.pt").exists(), "the weights were divided to the end"
    assert exit_code(start(one, (), 0.0, batch_size=4, accumulate=1, **options)) == 0
    assert logged(two) == pytest.approx(logged(one), abs=tolerance)
    assert result(two).keys() == result(one).keys()
    for key in ("steps", "tokens", "answer_tokens"):
        assert result(two)[key] == result(one)[key]


def test_a_killed_pair_goes_on_and_leaves_an_adapter_that_one_process_loads(tmp_path: Path) -> None:
    two, one = tmp_path / "two", tmp_path / "one"
    assert fit_in_two(two, ("on_train_batch_start", 5)) == [-signal.SIGKILL] * 2
    checkpoint = torch.load(two / "checkpoints" / "last.ckpt", weights_only=True)
    trained = {n for n, p in adapted(tiny_base()).named_parameters() if p.requires_grad}
    assert checkpoint["state_dict"].keys() == trained, "the base is not in it"
    assert fit_in_two(two) == [0, 0]
    assert exit_code(start(one, (), 0.0, batch_size=4, accumulate=1)) == 0
    assert logged(two) == pytest.approx(logged(one), abs=1e-5)
    found, expected = (load_file(d / "adapter" / "adapter_model.safetensors") for d in (two, one))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=2e-5, rtol=1e-3)
    loaded = load_adapter(tiny_base(), two / "adapter")
    prompt = torch.arange(3, 11).unsqueeze(0)
    tuned, untouched = loaded(prompt).logits, tiny_base()(prompt).logits
    assert (tuned - untouched).abs().max() > 1e-3


def logged(run_dir: Path) -> list[float]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    found = [v for line in lines for k, v in line["values"].items() if k.endswith("_loss")]
    assert len(found) == 16
    return found


def result(run_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_dir / "result.json").read_text())
    return found
