"""What a job needs before a weight is loaded: its log, its resolved configuration, checks."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from sizewise.config import DatasetConfig, RunConfig
from sizewise.errors import ConfigError
from sizewise.outcome import write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sizewise.metrics.base import ExampleMetric

CONFIG_FILE = "config.yaml"
LOG_FILE = "job.log"


@contextmanager
def job_log(run_dir: Path) -> Iterator[None]:
    """Write everything that is logged inside the block to the job's own ``job.log`` as well."""
    run_dir.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(run_dir / LOG_FILE, encoding="utf-8")
    handler.setFormatter(logging.Formatter("[%(asctime)s] %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


def write_config(cfg: RunConfig, run_dir: Path) -> None:
    """Write the resolved configuration, once: a run that goes on keeps the file it has."""
    path = run_dir / CONFIG_FILE
    if not path.is_file():
        write_atomically(path, yaml.safe_dump(asdict(cfg), sort_keys=False, allow_unicode=True))


def names_hub(cfg: RunConfig) -> bool:
    """Whether the configuration names something that may have to be fetched from the hub."""
    datasets = [cfg.dataset, *cfg.eval_dataset.values()]
    if any(_from_hub(dataset) for dataset in datasets):
        return True
    places = [cfg.model.path, cfg.model.tokenizer, cfg.adapter]
    return any(
        place is not None and not place.startswith("embedded:") and not Path(place).exists()
        for place in places
    )


def _from_hub(dataset: DatasetConfig) -> bool:
    kinds = {dataset.source.kind}
    kinds |= {part.get("source", {}).get("kind") for part in dataset.parts.values()}
    return "hub" in kinds


def check_primary(cfg: RunConfig, metrics: Sequence[ExampleMetric]) -> None:
    """Raise unless the score that every data set calls its own is among the chosen metrics."""
    names = sorted(metric.name for metric in metrics)
    for dataset in (cfg.dataset, *cfg.eval_dataset.values()):
        metric = dataset.primary.partition("/")[0]
        if metric not in names:
            raise ConfigError(
                f"dataset.primary={dataset.primary!r} of {dataset.name} needs the metric "
                f"{metric!r}, and metric={names} leaves it out. Add it: "
                f"metric=[{','.join([*names, metric])}]."
            )
