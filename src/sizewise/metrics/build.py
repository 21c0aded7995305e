"""Metrics from the configuration's ``metric`` node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.utils import instantiate

from sizewise.errors import ConfigError
from sizewise.metrics.base import ExampleMetric


def build_metrics(nodes: Mapping[str, Any]) -> list[ExampleMetric]:
    """Instantiate every ``_target_`` node of ``metric``, in the order of their keys.

    Raises:
        ConfigError: a node has no ``_target_``, cannot be built, or is no ``ExampleMetric``.
    """
    return [_build(key, nodes[key]) for key in sorted(nodes)]


def _build(key: str, node: Any) -> ExampleMetric:
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ConfigError(f"metric.{key} has no _target_. Name the class of the metric there.")
    missing = [name for name, value in node.items() if value == "???"]
    if missing:
        raise ConfigError(f"metric.{key}.{missing[0]} has no default. Give it a value.")
    try:
        metric = instantiate(dict(node), _convert_="all")
    except Exception as error:
        cause = error.__cause__ or error
        raise ConfigError(f"metric.{key} ({node['_target_']}) cannot be built: {cause}") from error
    if not isinstance(metric, ExampleMetric):
        raise ConfigError(
            f"metric.{key} ({node['_target_']}) is no ExampleMetric. Derive it from "
            "sizewise.metrics.base.ExampleMetric."
        )
    return metric
