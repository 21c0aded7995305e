"""Local files that a job reads (data, models, candidates): their content is part of the job."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from sizewise.config import DatasetConfig, RunConfig
from sizewise.data.rows.read import kind_of, plain_content_hash, sources_of
from sizewise.errors import ConfigError
from sizewise.files import file_hash
from sizewise.models.sources import EMBEDDED, PACKAGE, STAND_IN, local_content


def pinned(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration in which local files and bases are named with their content.

    So a file that was changed makes another job, and a queued job refuses a file that is no
    longer the one it was planned with. A hash that is there already stays.
    """
    copy = deepcopy(dict(config))
    datasets = [copy.get("dataset"), *(copy.get("eval_dataset") or {}).values()]
    for source in (source for dataset in datasets for source in sources_of(dataset)):
        if source.get("path") and not source.get("sha256"):
            source["sha256"] = plain_content_hash(source)
    model = copy.get("model")
    if isinstance(model, dict) and not model.get("content"):
        model["content"] = local_content(model)
    evaluation = copy.get("evaluation")
    if isinstance(evaluation, dict) and not evaluation.get("candidates_sha256"):
        evaluation["candidates_sha256"] = candidates_content(evaluation)
    return copy


def candidates_content(evaluation: Mapping[str, Any]) -> str | None:
    """Hash the file of ``evaluation.candidates`` (16 hex digits); None where it names no file."""
    choice = evaluation.get("candidates")
    if choice in (None, "auto", "train", "labels") or not Path(str(choice)).is_file():
        return None
    return file_hash(Path(str(choice)))[:16]


def check_candidates_content(evaluation: Mapping[str, Any]) -> None:
    """Raise ConfigError if the file of candidates is not the one that the job was planned with."""
    planned, found = evaluation.get("candidates_sha256"), candidates_content(evaluation)
    if planned and found and planned != found:
        raise ConfigError(
            f"evaluation.candidates={evaluation['candidates']!r} holds something else ({found}) "
            f"than when this run was planned ({planned}). Start the command again: with a changed "
            "file it is another run. The old run needs the old file."
        )


# What stands for itself: nothing of these is fetched.
OWN = (EMBEDDED, "classical:", PACKAGE, STAND_IN)


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
