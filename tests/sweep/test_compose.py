from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from sizewise.commands.run import prepare
from sizewise.composition.jobs import JobComposer
from sizewise.config import conf_dir, to_run_config
from sizewise.config.register import run_config
from sizewise.errors import ConfigError
from sizewise.record.identity import plain_config

# In this order: what is composed later must not show what was composed before.
JOBS = [
    ["model=nano", "lora.r=3"],
    ["model=nano", "lora.r=4", "seed=7"],
    ["model=gemma4b", "lora=dora", "quantization=nf4", "lora.r=12"],
    ["model=qwen3b", "lora=rslora", "metric=[icd10,efficiency]"],
    ["debug=fast", "model=mini"],
    ["model=qwen3b", "lora=dora", "+model.template_kwargs.enable_thinking=false"],
    ["model=nano", "generation.max_new_tokens=3", "dataset.prompt='a, b=[{dialogue}]'"],
    ["model=nano", "lora.r=3"],
]


@pytest.fixture(scope="module")
def composer() -> Iterator[JobComposer]:
    prepare()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield JobComposer(GlobalHydra.instance().config_loader(), "train", [])  # type: ignore[arg-type]


def test_every_job_is_composed_as_hydra_composes_it(composer: JobComposer) -> None:
    for overrides in JOBS:
        expected = plain_config(compose("train", overrides=overrides))
        assert composer.compose(overrides) == expected, overrides


def test_the_quick_conversion_equals_the_thorough_one(composer: JobComposer) -> None:
    config = composer.compose(["model=gemma4b", "lora.r=5"])
    assert asdict(run_config(config)) == asdict(to_run_config(config))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model=nope", "model/nope"),
        ("lora.rank=3", "lora.rank"),
        ("lora.r=abc", "lora.r"),
        ("lora.r=[", "lora.r=["),
    ],
)
def test_a_wrong_override_is_named(composer: JobComposer, override: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        composer.compose([override])
    assert said in str(error.value)


def test_a_wrong_value_does_not_stay(composer: JobComposer) -> None:
    with pytest.raises(ConfigError):
        composer.compose(["seed=3", "lora.r=abc"])
    config = composer.compose([])
    assert (config["seed"], config["lora"]["r"]) == (42, 8)


def test_an_unknown_key_of_a_plain_configuration_is_named(composer: JobComposer) -> None:
    config = composer.compose([])
    config["lora"]["rank"] = 3
    with pytest.raises(ConfigError, match=r"lora\.rank is not known"):
        run_config(config)
