"""What a job needs before a weight is loaded: its resolved configuration, checks."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from sizewise.atomic import write_atomically
from sizewise.config import DatasetConfig, RunConfig
from sizewise.data.example import Example, Message
from sizewise.data.sources import kind_of
from sizewise.errors import ConfigError
from sizewise.evaluation.prediction import Prediction
from sizewise.metrics.similarity import PACKAGE, STAND_IN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sizewise.metrics.base import ExampleMetric

PROBE = Prediction(
    id="0",
    group="0",
    prompt="A question?",
    reference="A00",
    text="A00",
    log_prob=-1.0,
    answer_tokens=2,
    answer_bytes=3,
    prompt_tokens=3,
    new_tokens=2,
    finished=True,
    latency=1.0,
    batch_size=1,
    scores={"rejected/log_prob": -2.0, "rejected/tokens": 2.0},
)
PROBE_EXAMPLE = Example((Message("user", "A question?"),), "A00", "0")
CONFIG_FILE = "config.yaml"
OWN = ("embedded:", "classical:", PACKAGE, STAND_IN)


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
    encoders = [metric.get("encoder") for metric in cfg.metric.values()]
    places = [cfg.model.path, cfg.model.tokenizer, cfg.adapter, *encoders]
    return any(
        place is not None and not place.startswith(OWN) and not Path(place).exists()
        for place in places
    )


def _from_hub(dataset: DatasetConfig) -> bool:
    kinds = {kind_of(dataset.source)}
    kinds |= {part.get("source", {}).get("kind") for part in dataset.parts.values()}
    return "hub" in kinds


def check_names(cfg: RunConfig) -> None:
    """Raise unless every data set of the job has a name of its own: results are kept by name."""
    names = [cfg.dataset.name, *(dataset.name for dataset in cfg.eval_dataset.values())]
    for key, dataset in cfg.eval_dataset.items():
        if names.count(dataset.name) > 1:
            raise ConfigError(
                f"Two data sets of this job are called {dataset.name!r}, and results are kept by "
                f"name. Name one otherwise: eval_dataset.{key}.name={dataset.name}_2."
            )


def check_primary(cfg: RunConfig, metrics: Sequence[ExampleMetric]) -> None:
    """Raise unless the score that every data set calls its own is among the chosen metrics'."""
    chosen = {metric.name: metric for metric in metrics}
    for dataset in (cfg.dataset, *cfg.eval_dataset.values()):
        name = dataset.primary.partition("/")[0]
        if name not in chosen:
            raise ConfigError(
                f"dataset.primary={dataset.primary!r} of {dataset.name} needs the metric "
                f"{name!r}, and metric={sorted(chosen)} leaves it out. Add it: "
                f"metric=[{','.join([*sorted(chosen), name])}]."
            )
        scores = score_names(chosen[name])
        if dataset.primary not in scores:
            raise ConfigError(
                f"dataset.primary={dataset.primary!r} of {dataset.name} is no score of the metric "
                f"{name!r}. Choose one of: {', '.join(scores)}."
            )


def score_names(metric: ExampleMetric) -> list[str]:
    """Return the names of a metric's scores, found by scoring one made-up prediction."""
    from sizewise.evaluation.evaluate import score_predictions

    scores, _ = score_predictions([PROBE], [metric], [PROBE_EXAMPLE])
    metric.reset()
    return sorted(scores)
