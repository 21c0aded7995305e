from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file
from tests.job.runs import SMALL, run
from torch import nn

from sizewise.composition.compose import compose_run
from sizewise.job import bases, fitting, language_model
from sizewise.job.fitting import UntrainedLoss
from sizewise.models import dtypes
from sizewise.models.base import load_base
from sizewise.record.outcome import Outcome
from sizewise.training.module import AnswerModule, Batch


@pytest.mark.parametrize(("bf16", "fused"), [(True, True), (False, None)])
def test_no_fused_step_where_auto_means_fp16(
    monkeypatch: pytest.MonkeyPatch, bf16: bool, fused: bool | None
) -> None:
    """Under loss scaling a fused step would unscale gradients that were clipped already."""
    monkeypatch.setattr(fitting, "resolve_device", lambda trainer: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    module = fitting.build_module(compose_run(["trainer.precision=auto"]), nn.Linear(2, 2))
    optimizer = module.optimizer_factory(module.model.parameters())
    assert optimizer.defaults["fused"] == fused


def test_a_16_bit_base_is_trained_in_fp32_and_scored_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where ``model.dtype=auto`` is bf16."""
    take_base = language_model.take_base

    def half(*arguments: Any) -> Any:
        return take_base(*arguments).to(torch.bfloat16)

    monkeypatch.setattr(language_model, "take_base", half)
    outcome = run(tmp_path, "full", "lora=full", "optimizer.lr=1e-5", "model.dtype=auto")
    weights = load_file(str(tmp_path / "full" / "adapter" / "full_model.safetensors"))
    assert {w.dtype for w in weights.values()} == {torch.float32}
    moved = [w for w in weights.values() if not torch.equal(w, w.bfloat16().float())]
    assert len(moved) > len(weights) / 2
    assert outcome.model.dtype == "bfloat16"


def test_true_bf16_is_one_precision_for_the_whole_job_and_no_other(tmp_path: Path) -> None:
    """Base, tuned model and resumed run alike, and the base goes back as it was loaded."""
    few = (
        "trainer.precision=bf16-true", "trainer.max_steps=1", "dataset.max_test=4",
        "dataset.max_validation=4", "generation.max_new_tokens=2",
    )  # fmt: skip
    bases.loaded_bases.clear()
    first = run(tmp_path, "run", *few)
    (kept,) = bases.loaded_bases.values()
    cfg = compose_run(["model=nano", *few])
    fresh = load_base(*bases.storage_of(cfg))
    assert fresh.dtype == torch.bfloat16
    found = dict([*kept.named_parameters(), *kept.named_buffers()])
    for name, tensor in [*fresh.named_parameters(), *fresh.named_buffers()]:
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)

    (tmp_path / "run/outcome.json").unlink()
    (tmp_path / "run/predictions/tuned.icd10_dialogues.jsonl").unlink()
    again = run(tmp_path, "run", *few)
    assert comparable_scores(again) == comparable_scores(first)

    other = compose_run(["model=nano", "trainer.precision=32-true"])
    base = bases.take_base(*bases.storage_of(other), torch.device("cpu"))
    assert {p.dtype for p in base.parameters()} == {torch.float32}


def comparable_scores(outcome: Outcome) -> list[dict[str, float]]:
    assert outcome.tuned is not None
    found = (outcome.base, outcome.tuned)
    return [
        {n: v for n, v in side["icd10_dialogues"].scores.items() if not n.startswith("efficiency")}
        for side in found
    ]


def test_the_loss_before_the_first_step_is_computed_once_per_base_and_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adapter begins with nothing, so rank, rate and seed do not change it by a bit."""
    read: list[int] = []
    original = AnswerModule.validation_step

    def counted(self: AnswerModule, batch: Batch, batch_idx: int) -> None:
        if self.known_loss is None and self.trainer.global_step == 0:
            read.append(batch_idx)
        original(self, batch, batch_idx)

    monkeypatch.setattr(AnswerModule, "validation_step", counted)

    def losses(name: str, *overrides: str) -> list[float]:
        run(tmp_path, name, "trainer.max_steps=1", "stage=train", *overrides)
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        found = [json.loads(line) for line in lines]
        values = [row["values"] for row in found if row["step"] == 0]
        return [each["val_loss"] for each in values if "val_loss" in each]

    (first,) = losses("first")
    computed = len(read)
    assert computed > 0
    assert losses("rank", "lora.r=16", "optimizer.lr=1e-4", "seed=3") == [first]
    assert len(read) == computed
    (fresh,) = losses("alone", "lora.r=16", f"paths.cache={tmp_path / 'other'}")
    assert fresh == first
    assert len(read) == 2 * computed
    (other,) = losses("data", "dataset.max_validation=6")
    assert other != first
    assert len(read) > 2 * computed


@pytest.mark.parametrize("method", ["none", "nf4"])
def test_a_divided_base_has_the_dtypes_of_the_gpus_and_not_of_the_host_that_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Else it would have twice the bytes, be planned in bf16, and answer in another precision."""
    asked: list[tuple[str, str, str]] = []

    def load(model: Any, quantization: Any, device: torch.device, packs: bool) -> None:
        asked.append((model.dtype, quantization.compute_dtype, device.type))
        raise InterruptedError

    monkeypatch.setattr(fitting, "load_base", load)
    monkeypatch.setattr(fitting, "resolve_device", lambda trainer: torch.device("cuda", 0))
    monkeypatch.setattr(dtypes, "computes_in_bf16", lambda device: device.type == "cuda")
    cfg = compose_run([*SMALL, f"quantization={method}"])
    with pytest.raises(InterruptedError):
        fitting.train_divided(cfg, cast(Any, None), 0, (), tmp_path)
    assert asked == [("bfloat16", "bfloat16", "cpu")]


def test_a_damaged_loss_is_computed_again(tmp_path: Path) -> None:
    kept = UntrainedLoss.of(tmp_path, "ab12")
    assert kept.read() is None
    kept.keep(1.5)
    assert UntrainedLoss.of(tmp_path, "ab12").read() == 1.5
    kept.path.write_text(kept.path.read_text().replace("1.5", "2.5"))
    assert kept.read() is None
    kept.keep(float("nan"))
    assert kept.read() is None
