"""Composition outside of ``hydra.main``: for commands, tests and programs."""

from __future__ import annotations

from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from sizewise.composition.shorthand import spelt_out
from sizewise.config.register import conf_dir, explained, register_schema, to_run_config
from sizewise.config.run import RunConfig


def compose_config(overrides: Sequence[str] = (), config_name: str = "train") -> DictConfig:
    """Compose one job from overrides as of ``train.py``; ConfigError where one is wrong."""
    from sizewise.composition.resolvers import register_resolvers

    overrides = spelt_out(overrides)
    register_schema()
    register_resolvers()
    GlobalHydra.instance().clear()
    folder = str(conf_dir())
    with explained(overrides), initialize_config_dir(version_base="1.3", config_dir=folder):
        return compose(config_name, overrides=overrides)


def compose_run(overrides: Sequence[str] = (), config_name: str = "train") -> RunConfig:
    config = compose_config(overrides, config_name)
    OmegaConf.resolve(config)
    return to_run_config(config)
