from __future__ import annotations

import pytest
from tools.option_reference import main, render_reference

from sizewise.config import LoraConfig, RunConfig, to_run_config
from sizewise.errors import ConfigError

MINIMAL = {
    "model": {"name": "m", "path": "embedded:nano"},
    "dataset": {
        "name": "d",
        "source": {"kind": "csv", "path": "x.csv"},
        "prompt": "{q}",
        "answer": "{a}",
        "primary": "perplexity/bits_per_byte",
        "direction": "min",
    },
    "optimizer": {"target": "torch.optim.AdamW"},
}


def _with(path: str, value: object) -> dict:
    config: dict = {key: dict(part) for key, part in MINIMAL.items()}
    node, keys = config, path.split(".")
    for key in keys[:-1]:
        node[key] = dict(node.get(key, {}))
        node = node[key]
    node[keys[-1]] = value
    return config


def test_a_minimal_config_becomes_typed_objects():
    cfg = to_run_config(MINIMAL)
    assert isinstance(cfg, RunConfig)
    assert cfg.lora.effective_alpha == 32.0
    assert cfg.dataset.source.kind == "csv"


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("lora.r", 0, ("lora.r=0", "at least 1")),
        ("sweep.prices.api_per_1000_tokens", 2.0, ("device_per_hour", "beside it")),
        ("sweep.prices.device_per_hour", -1.0, ("device_per_hour=-1", "at least 0")),
        ("lora.rr", 4, ("rr",)),
        ("lora.r", "many", ("lora.r",)),
        ("lora.method", "lorax", ("lora.method", "rslora")),
        ("quantization.method", "nf3", ("quantization.method", "nf4")),
        ("optimizer.lr", -1.0, ("optimizer.lr",)),
        ("generation.max_new_tokens", 0, ("generation.max_new_tokens",)),
        ("dataset.split.test", 1.5, ("dataset.split.test",)),
        ("trainer.precision", "fp8", ("trainer.precision", "bf16-mixed")),
        ("stage", "fulll", ("stage", "evaluate")),
        # Point 23 of the review: what was found too late, or came as a library's error.
        ("optimizer.lr", float("inf"), ("optimizer.lr=inf", "no finite number")),
        ("optimizer.weight_decay", float("nan"), ("weight_decay=nan", "no finite number")),
        ("trainer.max_steps", 0, ("trainer.max_steps=0", "trains nothing", "-1")),
        ("trainer.max_epochs", 0, ("trainer.max_epochs=0", "trains nothing")),
        ("trainer.max_epochs", -2, ("trainer.max_epochs=-2", "trains nothing")),
        ("trainer.max_epochs", -1, ("trainer.max_epochs=-1", "never end")),
        ("trainer.max_epochs", 0.5, ("max_epochs=0.5", "no whole number", "trainer.max_steps")),
        ("seed", 12345678901234567890, ("seed=12345678901234567890", "19 digits")),
        ("lora.init_seed", -1, ("lora.init_seed=-1", "too small")),
        ("generation.seed", 2**63, ("generation.seed", "too large for a seed")),
        ("lora.rank_pattern", {"q_proj": 0}, ("lora.rank_pattern.q_proj=0", "above 0")),
        ("sweep.name", "../x", ("sweep.name='../x'", "without slashes")),
        ("sweep.name", "..", ("sweep.name='..'", "is a path")),
        ("model.added_tokens", ["", "<a>"], ("model.added_tokens", "empty")),
    ],
)
def test_a_wrong_value_names_its_key_and_what_is_allowed(path, value, words):
    with pytest.raises(ConfigError) as caught:
        to_run_config(_with(path, value))
    for word in words:
        assert word in str(caught.value)


def test_a_missing_value_names_its_key():
    config = _with("seed", 1)
    del config["model"]["path"]
    with pytest.raises(ConfigError, match=r"model\.path"):
        to_run_config(config)


def test_alpha_follows_the_rank_where_a_ratio_is_given():
    scales = {LoraConfig(r=r, alpha_ratio=2.0).scale for r in (4, 8, 16, 64)}
    assert scales == {2.0}
    assert LoraConfig(r=16, alpha=16).scale == 1.0
    assert LoraConfig(r=16, alpha=32, method="rslora").scale == 8.0


def test_the_reference_is_up_to_date_and_a_stale_one_is_noticed(tmp_path):
    page = tmp_path / "options.md"
    assert main([str(page)]) == 0
    assert main(["--check", str(page)]) == 0
    page.write_text(page.read_text() + "x")
    assert main(["--check", str(page)]) == 1
    assert "`lora.r`" in render_reference()
