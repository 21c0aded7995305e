"""Point 23: what cannot train is refused before a weight is loaded."""

from __future__ import annotations

import re
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from sizewise.composition.compose import compose_run
from sizewise.errors import ConfigError
from sizewise.training.preflight import check_training, make_callbacks


def check(*overrides: str) -> None:
    check_training(compose_run(["model=nano", "trainer.accelerator=cpu", *overrides]))


def test_dora_over_int8_is_refused_on_the_cpu() -> None:
    with pytest.raises(ConfigError, match="lora=dora needs the weights of each layer"):
        check("lora=dora", "quantization=int8")
    check("lora=dora", "quantization=nf4")


STOPPING = "pytorch_lightning.callbacks.EarlyStopping"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.target=torch.nn.Linear", "optimizer.target='torch.nn.Linear' is not a torch"),
        ("optimizer.target=torch.optim.Nothing", "cannot be imported"),
        ("+optimizer.kwargs.warmth=3", "optimizer.kwargs={.*'warmth': 3} do not suit"),
        ("trainer.strategy=foo", "trainer.strategy=foo with trainer.devices=1"),
        (
            "+callbacks.mine={_target_: torch.nn.Linear}",
            r"callbacks\.mine \(torch\.nn\.Linear\) is no Callback",
        ),
        (
            "+callbacks.mine={_target_: os.getcwd}",
            r"callbacks\.mine \(os\.getcwd\) cannot be built",
        ),
        ("+callbacks.mine={patience: 3}", "callbacks.mine has no _target_"),
        ("callbacks.early_stopping.mode=up", r"callbacks\.early_stopping .* cannot be built"),
        ("+callbacks.early_stopping.patients=3", r"callbacks\.early_stopping .* cannot be built"),
        ("callbacks.early_stopping.monitor=loss", "early_stopping.monitor='loss'"),
    ],
)
def test_what_cannot_be_built_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(override)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model.device_map=auto",), "answer; it trains nothing.*trainer.strategy=fsdp"),
        (("model.device_map=auto", "trainer=ddp"), "it trains nothing"),
        (("trainer=fsdp", "trainer.devices=1"), "trainer.devices=1, among which nothing"),
        (("trainer=fsdp", "lora=full"), "lora=full, since adapters alone"),
        (("trainer=fsdp", "trainer.precision=16-mixed"), "loss scaling knows no shares"),
        (("trainer=fsdp", "optimizer=adamw8bit"), "optimizer.target=bitsandbytes.* no shares"),
    ],
)
def test_a_base_over_several_gpus_that_cannot_train(
    overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check(*overrides)
    check(*overrides, "lora=none")
    check("trainer=fsdp", "model.device_map=auto")
    check("debug=dry_run", "model.device_map=auto")


@pytest.mark.parametrize("override", ["lora=none", "lora=all_linear", "trainer=deterministic"])
def test_what_can_be_built_passes_and_leaves_torch_as_it_was(override: str) -> None:
    before = torch.are_deterministic_algorithms_enabled()
    check(override)
    assert torch.are_deterministic_algorithms_enabled() == before


@pytest.mark.parametrize("name", ["adamw", "adamw8bit", "paged_adamw8bit", "sgd", "adafactor"])
def test_every_optimiser_of_the_options_passes(name: str) -> None:
    check(f"optimizer={name}")


def test_a_callback_calls_nothing_but_callbacks(tmp_path: Any) -> None:
    """Neither another class nor a nested one is ever called."""
    made = tmp_path / "made"
    touch = {"_target_": "pathlib.Path.touch", "_args_": [str(made)]}
    for node in (touch, {"_target_": STOPPING, "monitor": "val_loss", "mode": [touch]}):
        with pytest.raises(ConfigError, match=re.escape("callbacks.mine")):
            make_callbacks({"mine": node})
    assert not made.exists()
    built = make_callbacks({"mine": {"_target_": STOPPING, "monitor": "val_loss"}, "off": None})
    assert [type(callback) for callback in built] == [pl.callbacks.EarlyStopping]
