"""Composition outside of ``hydra.main``: for commands, tests and programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sizewise.config.register import conf_dir, explain, register_schema, to_run_config
from sizewise.config.run import RunConfig
from sizewise.errors import ConfigError


def compose_config(overrides: Sequence[str] = (), config_name: str = "train") -> DictConfig:
    """Compose one job from overrides as of ``train.py``; ConfigError where one is wrong."""
    from sizewise.composition.resolvers import register_resolvers

    register_schema()
    register_resolvers()
    checkout = str(conf_dir().parent)
    if checkout not in sys.path:
        sys.path.append(checkout)  # the named sweeps are found as the package ``sweeps``
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
            return compose(config_name, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error)) from error


def compose_run(overrides: Sequence[str] = (), config_name: str = "train") -> RunConfig:
    config = compose_config(overrides, config_name)
    OmegaConf.resolve(config)
    return to_run_config(config)
