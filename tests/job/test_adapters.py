"""Adapters that were trained elsewhere, evaluated on their own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.job.runs import run

from sizewise.composition.compose import compose_run
from sizewise.config import ModelConfig
from sizewise.errors import ConfigError, ModelError
from sizewise.job import bases, language_model
from sizewise.job.bases import compare_bases
from sizewise.models.sources import embedded_model_path, weight_files
from sizewise.record.outcome import Outcome

FEW = (
    "dataset.max_test=4", "dataset.max_validation=4", "trainer.max_steps=1",
    "generation.max_new_tokens=2",
)  # fmt: skip
EVALUATE = (*FEW, "stage=evaluate", "lora=none")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    root = tmp_path_factory.mktemp("adapters")
    return root, run(root, "trained", *FEW, "lora=rslora", "lora.r=16")


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(embedded_model_path("nano"), tmp_path / "copy"))


def test_the_record_says_what_the_adapter_is_whatever_the_command_did(trained: Any) -> None:
    root, own = trained
    found = run(root, "evaluated", *EVALUATE, f"adapter={root / 'trained' / 'adapter'}")
    assert own.model.lora_method == "rslora"
    assert (own.model.lora_r, own.model.lora_scale) == (16, 4.0)
    for name in ("method", "r", "alpha", "scale"):
        assert getattr(found.model, f"lora_{name}") == getattr(own.model, f"lora_{name}")
    assert found.model.params_trainable == own.model.params_trainable > 0
    assert found.warnings == own.warnings == []


def test_an_adapter_is_refused_on_another_base_of_the_same_shape(
    trained: Any, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = trained
    options = (f"model.path={copied}", f"adapter={root / 'trained' / 'adapter'}", *EVALUATE)
    run(root, "copy", *options)
    weights = load_file(copied / "model.safetensors")
    moved = {name: tensor + 0.1 for name, tensor in weights.items()}
    save_file(moved, copied / "model.safetensors", metadata={"format": "pt"})
    monkeypatch.setattr(language_model, "take_base", lambda *_: pytest.fail("weights were loaded"))
    with pytest.raises(ModelError, match="is another base"):
        run(root, "other", *options)


def test_bases_are_compared_with_caution(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compare(recorded: str, path: str) -> str | None:
        return compare_bases(recorded, ModelConfig(name="m", path=path), "adapter")

    assert compare(str(copied), "embedded:nano") is None
    assert compare("/elsewhere/embedded/models/nano", "embedded:nano") is None
    assert "could not be checked" in (compare("/elsewhere/models/third", str(copied)) or "")
    assert "could not be checked" in (compare("owner/third", str(copied)) or "")
    assert compare("owner/copy", str(copied)) is None
    monkeypatch.setattr("sizewise.models.sources.is_cached", lambda *_: True)
    assert compare("Owner/Base", "owner/base") is None
    with pytest.raises(ModelError, match="was trained on owner/third"):
        compare("owner/third", "owner/base")


@pytest.mark.parametrize("lora", ["none", "all_linear"])
def test_an_adapter_is_not_left_out_in_silence(trained: Any, lora: str) -> None:
    root, _ = trained
    with pytest.raises(ConfigError, match=r"stage=full would leave it out.*stage=evaluate"):
        run(root, f"train_{lora}", *FEW, f"lora={lora}", f"adapter={root / 'trained' / 'adapter'}")


def test_a_fully_trained_model_that_was_evaluated_is_no_base_for_the_next_job(
    tmp_path: Path,
) -> None:
    run(tmp_path, "full", *FEW, "lora=full")
    found = run(tmp_path, "again", *EVALUATE, f"adapter={tmp_path / 'full' / 'adapter'}")
    assert found.model.lora_method == "full"
    assert found.model.params_trainable == found.model.params_base
    base = bases.take_base(*bases.storage_of(compose_run(["model=nano"])), torch.device("cpu"))
    fresh = bases.load_base(*bases.storage_of(compose_run(["model=nano"])))
    assert all(
        torch.equal(a, b) for a, b in zip(base.parameters(), fresh.parameters(), strict=True)
    )


def test_a_second_copy_of_the_weights_does_not_count(tmp_path: Path) -> None:
    for name in ("consolidated", "model-00001-of-00002", "model-00002-of-00002"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"12")
    assert len(weight_files(tmp_path)) == 3
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = f'{{"weight_map": {{"a": "{shards[0]}", "b": "{shards[1]}", "c": "{shards[0]}"}}}}'
    (tmp_path / "model.safetensors.index.json").write_text(index)
    assert [file.name for file in weight_files(tmp_path)] == shards
    (tmp_path / "model.safetensors").write_bytes(b"12")
    assert [file.name for file in weight_files(tmp_path)] == ["model.safetensors"]
