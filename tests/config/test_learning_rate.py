"""The defaults that let ranks, sizes and methods share a sweep: scale, dropout, learning rate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sizewise.composition.compose import compose_run
from sizewise.config import LoraConfig
from sizewise.config.training import default_learning_rate


def test_alpha_is_constant_over_ranks_unless_a_ratio_is_given() -> None:
    assert {LoraConfig(r=r).effective_alpha for r in (1, 4, 16, 64)} == {32.0}
    assert [LoraConfig(r=r).scale for r in (4, 16, 64)] == [8.0, 2.0, 0.5]
    assert LoraConfig(r=64, alpha_ratio=2.0).effective_alpha == 128.0
    assert LoraConfig(r=64, alpha=16.0, alpha_ratio=2.0).effective_alpha == 16.0
    assert LoraConfig().dropout == 0.0


def test_a_record_of_the_time_when_alpha_followed_the_rank_keeps_its_alpha() -> None:
    assert LoraConfig(r=4, alpha=None, alpha_ratio=2.0).effective_alpha == 8.0


def test_the_rate_falls_with_the_width_and_grows_with_the_batch_up_to_a_limit() -> None:
    widths = [default_learning_rate(width, True, 16) for width in (64, 256, 1024, 4096)]
    assert widths == sorted(widths, reverse=True)
    batches = [default_learning_rate(2000, True, batch) for batch in (4, 16, 32, 512)]
    assert batches[0] == pytest.approx(batches[1] / 2, rel=0.1)
    assert batches[2] == batches[3] == pytest.approx(5e-4)


def test_all_weights_take_a_tenth_of_an_adapters_rate() -> None:
    adapter, full = (default_learning_rate(512, kind, 16) for kind in (True, False))
    assert full == pytest.approx(adapter / 10, rel=0.1)


def test_the_composed_rate_follows_the_base_the_method_and_the_batch() -> None:
    def rate(*overrides: str) -> float:
        return compose_run(overrides).optimizer.lr

    nano = rate("model=nano")
    assert nano > rate("model=mini") > rate("model=llama8b")
    assert rate("model=nano", "lora.r=64") == nano
    assert rate("model=nano", "lora=full") < nano < rate("model=nano", "trainer.batch_size=16")
    assert rate("model=nano", "trainer.accumulate=2") == rate("model=nano", "trainer.batch_size=16")
    assert rate("model=nano", "model.suggested_lr=0.3") == 0.3
    assert rate("model=nano", "optimizer.lr=0.2") == 0.2


@pytest.mark.parametrize(
    "said", [{"hidden_size": 64}, {"text_config": {"hidden_size": 64}}, {"d_model": 64}]
)
def test_a_local_folder_says_its_width(tmp_path: Path, said: dict[str, object]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(said))
    local = compose_run(["model=local", f"model.path={tmp_path}"]).optimizer.lr
    assert local == compose_run(["model=nano"]).optimizer.lr
