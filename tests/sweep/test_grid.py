from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from sizewise.errors import ConfigError
from sizewise.sweep.grid import expand

parse = OverridesParser.create().parse_overrides

ARMS = {"base": ["model=large", "lora=none"], "tuned": ["model=small,tiny", "lora.r=4,8"]}


def test_without_arms_the_command_is_the_grid() -> None:
    jobs = expand(["a=1,2", "b='x,y',z", "c=range(0,3)", "sweep.limit=3"], {}, parse)
    assert len(jobs) == 2 * 2 * 3
    assert jobs[0] == ("a=1", "b='x,y'", "c=0")


def test_arms_are_a_union_and_not_a_product() -> None:
    jobs = expand(["seed=1,2", "sweep.name=x"], ARMS, parse)
    assert len(jobs) == 2 + 2 * 2 * 2
    assert ("model=large", "lora=none", "seed=2") in jobs


def test_the_command_has_the_last_word_in_every_arm() -> None:
    jobs = expand(["model=other", "lora.r=16"], ARMS, parse)
    assert jobs == [("lora=none", "model=other", "lora.r=16"), ("model=other", "lora.r=16")]


def test_an_arm_that_cannot_be_read_is_named() -> None:
    def fails(overrides: list[str]) -> list[object]:
        if overrides == ["lora.r=["]:
            raise ConfigError("cannot be read")
        return []

    with pytest.raises(ConfigError, match=r"sweep\.arms\.bad: cannot be read"):
        expand([], {"bad": ["lora.r=["]}, fails)  # type: ignore[arg-type]


def test_a_continuous_range_is_no_grid() -> None:
    with pytest.raises(ConfigError, match="hydra/sweeper=search"):
        expand(["optimizer.lr=interval(0,1)"], {}, parse)
