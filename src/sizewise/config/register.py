"""Registration of the schema with Hydra and conversion of a composed config into objects."""

from __future__ import annotations

from typing import Any, cast

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sizewise.config.explain import explain
from sizewise.config.run import RunConfig
from sizewise.errors import ConfigError

SCHEMA_NAME = "sizewise_schema"


def register_schema() -> None:
    """Put the schema of a job into Hydra's config store (idempotent)."""
    ConfigStore.instance().store(name=SCHEMA_NAME, node=RunConfig, provider="sizewise")


def to_run_config(cfg: DictConfig | dict[str, Any]) -> RunConfig:
    """Turn a composed config into typed objects, running every check of the schema.

    Args:
        cfg: what Hydra composed, or a plain mapping of the same shape (``hydra`` is ignored).

    Raises:
        ConfigError: a value is missing, unknown or out of range; the message names the key.
    """
    node = OmegaConf.create(cfg) if isinstance(cfg, dict) else cfg
    keys = [key for key in node if key != "hydra"]
    try:
        schema = OmegaConf.structured(RunConfig)
        merged = OmegaConf.merge(schema, OmegaConf.masked_copy(node, cast(Any, keys)))
        return cast(RunConfig, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
