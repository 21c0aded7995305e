"""Loggers of one run: made from the configuration, finished with the outcome."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sizewise.config.evaluation import LoggerConfig
from sizewise.config.targets import build
from sizewise.tracking.summary import (
    RunContext,
    numbers_only,
    summary_values,
    tracked_config,
    tracked_facts,
)

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger

    from sizewise.record.outcome import Outcome

log = logging.getLogger(__name__)


@runtime_checkable
class Backend(Protocol):
    """What a ``_target_`` under ``logger.backends`` builds: options, and how to start a logger."""

    def start(self, context: RunContext) -> Logger: ...


@runtime_checkable
class Checks(Protocol):
    """Options that can tell before anything is read or loaded that they cannot work."""

    def check(self) -> None:
        """Raise ConfigError where a package or a setting is missing; open and write nothing."""
        ...


@runtime_checkable
class Finishes(Protocol):
    """A logger that takes the outcome and closes."""

    def finish(self, outcome: Outcome | None, error: bool) -> None:
        """Write the summary and close; called once, also after an error."""
        ...


def check_loggers(logger: LoggerConfig) -> None:
    """Raise ConfigError where a tracker that was chosen cannot be started."""
    for name, node in logger.backends.items():
        built = None if node is None else _built(name, node)
        if isinstance(built, Checks):
            built.check()


def make_loggers(
    logger: LoggerConfig,
    run_dir: Path,
    run_id: str,
    group: str | None = None,
    job_type: str = "train",
    tags: Sequence[str] = (),
    config: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> list[Logger]:
    """Build the loggers of one run: its own ``metrics.jsonl`` first, then the chosen trackers.

    Nothing is opened before Lightning logs or asks for it, so that a failure in between leaves
    no empty run behind.

    Args:
        logger: the config group; each of its ``backends`` names a ``_target_``.
        run_dir: the run's directory (made if it is not there).
        group: the sweep's name.
        job_type: ``train`` or ``evaluate``.
        config: the resolved configuration; OmegaConf objects are turned into plain containers.
        facts: what trackers are told beside it, by dotted keys.

    Raises:
        ConfigError: a back end is neither a ``Backend`` nor a Lightning logger.
    """
    from sizewise.tracking.metrics_file import MetricsFile

    run_dir.mkdir(parents=True, exist_ok=True)
    made: list[Logger] = [MetricsFile(run_dir)]
    chosen = {name: node for name, node in logger.backends.items() if node is not None}
    if not chosen:
        return made
    told = {**tracked_config(plain(config or {})), **dict(facts or {}), **tracked_facts()}
    context = RunContext(run_dir, run_id, group, job_type, tuple(tags), told, logger.log_examples)
    return [*made, *(_make(name, node, context) for name, node in chosen.items())]


def plain(config: Any) -> Any:
    """Return ``config`` without OmegaConf types, interpolations resolved."""
    from omegaconf import OmegaConf

    if OmegaConf.is_config(config):
        return OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    if isinstance(config, Mapping):
        return {str(key): plain(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [plain(value) for value in config]
    return config


def _built(name: str, node: Any) -> Any:
    from pytorch_lightning.loggers import Logger

    return build(plain(node), f"logger.backends.{name}", Logger, Backend)


def _make(name: str, node: Any, context: RunContext) -> Logger:
    from pytorch_lightning.loggers import Logger

    built = _built(name, node)
    return built if isinstance(built, Logger) else built.start(context)


def finish_loggers(loggers: Sequence[Logger], outcome: Outcome | None, error: bool) -> None:
    """Write the summary of ``outcome`` to every tracker and close it; belongs in a ``finally``.

    A tracker that cannot be closed is reported and does not keep the others from closing: the
    run's own files are complete without it.
    """
    for logger in loggers:
        try:
            _finish(logger, outcome, error)
        except Exception:
            log.warning("The logger %s could not be closed.", type(logger).__name__, exc_info=True)


def _finish(logger: Logger, outcome: Outcome | None, error: bool) -> None:
    if isinstance(logger, Finishes):
        logger.finish(outcome, error)
        return
    if outcome is not None:
        values = numbers_only(summary_values(outcome))
        logger.log_metrics({f"summary/{name}": value for name, value in values.items()})
    logger.save()
    logger.finalize("failed" if error else "success")
