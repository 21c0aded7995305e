"""The job of scoring a finished run again, without training: ``evaluate.py run=DIR``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from sizewise.composition.others import check_recorded_judges, check_recorded_server
from sizewise.config import RunConfig
from sizewise.config.evaluation import EvaluationConfig
from sizewise.config.targets import check_own, recorded_config
from sizewise.errors import ConfigError, OutcomeError
from sizewise.record.directories import CONFIG_FILE, RunDir
from sizewise.record.fit import check_adapter

# What may be said beside run=DIR; everything else is the run's own.
SAID = (
    "run", "metric", "eval_dataset", "evaluation", "trainer.accelerator", "trainer.progress_bar",
    "logger", "paths", "sweep", "report", "hydra", "trust", "model.trust_remote_code",
)  # fmt: skip


def of_finished_run(cfg: RunConfig, overrides: Sequence[str] | None = None) -> RunConfig:
    """Return the job that scores the model of ``cfg.run`` as it was trained.

    Base, storage, adapter, data, decoding and metrics are the run's; further metrics and test sets
    of ``cfg`` are added, and its values of ``evaluation`` go before the run's. Without ``cfg.run``
    the job is returned as it is.

    The run may be anybody's: it is data. Classes of its metrics that are not sizewise's are refused
    unless ``cfg.trust``, and code that comes with its base is run only if ``cfg`` itself says so.

    Args:
        cfg: the job.
        overrides: those it was composed from, where they are known. If none names a metric, the
            metrics of ``cfg`` are those of a data set that is not the run's, and are left out.

    Raises:
        ConfigError: there is no finished training, or an override is about what is the run's own.
        OutcomeError: the configuration of the run cannot be read.
    """
    if cfg.run is None:
        return cfg
    _refuse_what_is_the_runs(overrides or ())
    metrics, changes = _asked(cfg, overrides), _changes(cfg.evaluation)
    done, adapter = _stored(cfg)
    return replace(
        done,
        stage="evaluate",
        run=cfg.run,
        trust=cfg.trust,
        adapter=adapter,
        metric={**metrics, **done.metric, **_set(metrics, overrides or ())},
        eval_dataset={**done.eval_dataset, **cfg.eval_dataset},
        evaluation=replace(
            done.evaluation,
            **changes | {"engine": cfg.evaluation.engine, "server": cfg.evaluation.server},
        ),
        trainer=replace(
            done.trainer,
            accelerator=cfg.trainer.accelerator,
            progress_bar=cfg.trainer.progress_bar,
        ),
        logger=cfg.logger,
        paths=cfg.paths,
        sweep=cfg.sweep,
        report=cfg.report,
    )


def _stored(cfg: RunConfig) -> tuple[RunConfig, str | None]:
    """Return the run's own job as it is recorded, and its adapter's folder where it trained one.

    Raises:
        ConfigError: there is no run, or its training is not finished.
    """
    folder = Path(str(cfg.run)).expanduser()
    stored = stored_config(folder)
    if stored is None:
        raise ConfigError(f"run={cfg.run!r} holds no {CONFIG_FILE}. Give the directory of a run.")
    done = recorded_config(stored, cfg.model.trust_remote_code)
    check_own(done.metric, "metric", cfg.trust)
    check_recorded_judges(done.metric, cfg.trust)
    check_recorded_server("model.base_url", done.model, cfg.trust)
    if not done.lora.trains:
        return done, None
    adapter = RunDir(folder).adapter
    if not adapter.is_dir():
        raise ConfigError(f"run={cfg.run!r} has not finished training. Start it again first.")
    check_adapter(adapter)
    return done, str(adapter)


def stored_config(directory: Path) -> dict[str, Any] | None:
    """Read ``config.yaml`` of a run directory; None where there is none.

    Raises:
        OutcomeError: it cannot be read, or is no mapping.
    """
    import yaml

    path = RunDir(directory).config
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise OutcomeError(f"{path} cannot be read: {reason}.") from error
    if not isinstance(found, dict):
        raise OutcomeError(f"{path} holds no mapping, so it is no configuration.")
    return found


def _refuse_what_is_the_runs(overrides: Sequence[str]) -> None:
    for text in overrides:
        key = text.lstrip("+~").split("=")[0].split("@")[0].replace("/", ".")
        if not any(key == name or key.startswith(f"{name}.") for name in SAID):
            raise ConfigError(
                f"{text}: with run=DIR base, data and decoding are those of the run, so this would "
                f"have no effect. Leave it out (what can be given: {', '.join(SAID)}); for other "
                "test examples add a test set with eval_dataset=[…]."
            )


def _changes(wanted: EvaluationConfig) -> dict[str, Any]:
    """Return every value of ``wanted`` that is not the default."""
    default = EvaluationConfig()
    return {
        part.name: getattr(wanted, part.name)
        for part in fields(EvaluationConfig)
        if getattr(wanted, part.name) != getattr(default, part.name)
    }


def _set(metrics: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The metrics of which a setting was typed: they are asked so, whatever the run had."""
    words = [text.lstrip("+~").partition("=")[0].split(".") for text in overrides]
    typed = {word[1] for word in words if word[0] == "metric" and len(word) > 2}
    return {name: node for name, node in metrics.items() if name in typed}


def _asked(cfg: RunConfig, overrides: Sequence[str] | None) -> dict[str, Any]:
    names = [text.lstrip("+~") for text in overrides or ()]
    if overrides and not any(name.startswith(("metric", "experiment")) for name in names):
        return {}
    return dict(cfg.metric)
