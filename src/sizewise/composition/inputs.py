"""Local files that a job reads (data, models, candidates): their content is part of the job."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sizewise.composition.others import other_model, others_of, pin_others
from sizewise.config import WITHOUT_WEIGHTS, DatasetConfig, RunConfig, SourceConfig, to_run_config
from sizewise.data.rows.read import find_files, kind_of, plain_content_hash, sources_of
from sizewise.errors import ConfigError
from sizewise.files import file_hash, refuse_changed
from sizewise.models.sources import EMBEDDED, HUB_ID, PACKAGE, STAND_IN, check_place, local_content
from sizewise.record.identity import plain_copy

LOCAL = ("csv", "json", "parquet", "sqlite")


def pinned(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration in which local files and bases are named with their content.

    So a file that was changed makes another job, and a queued job refuses a file that is no
    longer the one it was planned with. A hash that is there already stays.

    Raises:
        ConfigError: the base is called as another one is.
    """
    copy = plain_copy(dict(config))
    check_name(copy.get("model") or {})
    datasets = [copy.get("dataset"), *(copy.get("eval_dataset") or {}).values()]
    for source in (source for dataset in datasets for source in sources_of(dataset)):
        if source.get("path") and not source.get("sha256"):
            source["sha256"] = plain_content_hash(source)
    model = copy.get("model")
    if isinstance(model, dict) and not model.get("content") and _is_loaded(model):
        model["content"] = local_content(model)
    evaluation = copy.get("evaluation")
    if isinstance(evaluation, dict) and not evaluation.get("candidates_sha256"):
        evaluation["candidates_sha256"] = candidates_content(evaluation)
    pin_others(copy)
    teaching = (copy.get("dataset") or {}).get("teaching")
    if isinstance(teaching, dict) and teaching.get("prompts") and not teaching["prompts_sha256"]:
        source = {"kind": "hub", "path": teaching["prompts"]}
        teaching["prompts_sha256"] = plain_content_hash(source)
    return copy


# What model families are called: an embedded base is none of them.
_FAMILIES = re.compile(
    r"qwen|llama|gemma|mistral|mixtral|ministral|phi-?\d|smollm|gpt|deepseek|t5|falcon|pythia|olmo|"
    r"bert|granite|claude",
    re.IGNORECASE,
)


def check_name(model: Mapping[str, Any]) -> None:
    """Refuse ``model.name`` where it names another model than the one that would run.

    Raises:
        ConfigError: a hub id or a known family on an embedded base or a baseline, or a hub id that
            is another than ``model.path``.
    """
    name, path = str(model.get("name")), str(model.get("path"))
    id_ = "/" in name and HUB_ID.match(name) is not None
    ours = path.startswith((EMBEDDED, "classical:"))
    on_hub = path.count("/") == 1 and HUB_ID.match(path) is not None and not Path(path).is_dir()
    if (ours and (id_ or _FAMILIES.search(name))) or (on_hub and id_ and name != path):
        meant = f"model={name}" if id_ else "model=OWNER/NAME, or one of its options"
        raise ConfigError(
            f"model.name={name} only names a model in reports: what would run is {path}. "
            f"To run that one: {meant}."
        )


def _is_loaded(model: Mapping[str, Any]) -> bool:
    return model.get("family") not in WITHOUT_WEIGHTS


def candidates_content(evaluation: Mapping[str, Any]) -> str | None:
    """Hash the file of ``evaluation.candidates`` (16 hex digits); None where it names no file."""
    choice = evaluation.get("candidates")
    if choice in (None, "auto", "train", "labels") or not Path(str(choice)).is_file():
        return None
    return file_hash(Path(str(choice)))[:16]


def check_candidates_content(evaluation: Mapping[str, Any]) -> None:
    """Raise ConfigError if the file of candidates is not the one that the job was planned with."""
    what = f"evaluation.candidates={evaluation.get('candidates')!r}"
    planned, found = evaluation.get("candidates_sha256"), candidates_content(evaluation)
    refuse_changed(what, planned, found, ConfigError)


def check_places(config: Mapping[str, Any], ask_hub: bool = False) -> None:
    """Raise if local files or folders that a job names are not there.

    Needs none of the large libraries, so that a wrong path is refused at once. ``ask_hub``: look
    for a model of the hub, too.

    Raises:
        SizewiseError: the message names the path.
    """
    model = to_run_config({"model": config["model"]}, check_types=False).model
    local = not (HUB_ID.match(model.path) or model.path.startswith(OWN) or model.tokenizer)
    if model.has_weights and (ask_hub or local):
        check_place(model)
    for dataset in (config.get("dataset"), *(config.get("eval_dataset") or {}).values()):
        for node in sources_of(dataset):
            source = SourceConfig(**node)
            for _, part in source.by_split() if source.kind in LOCAL else ():
                find_files(part.path)


# What stands for itself: nothing of these is fetched.
OWN = (EMBEDDED, "classical:", PACKAGE, STAND_IN)


def names_hub(cfg: RunConfig) -> bool:
    """Whether the configuration names something that may have to be fetched from the hub."""
    datasets = [cfg.dataset, *cfg.eval_dataset.values()]
    if any(_from_hub(dataset) for dataset in datasets):
        return True
    metrics = [metric for metric in cfg.metric.values() if isinstance(metric, Mapping)]
    encoders = [metric.get("encoder") for metric in metrics]
    base = [cfg.model.path, cfg.model.tokenizer] if cfg.model.has_weights else []
    others = [other_model(value, key).model for key, value in others_of(asdict(cfg))]
    base += [place for m in others if m.has_weights for place in (m.path, m.tokenizer)]
    places = [*base, cfg.adapter, *encoders]
    return any(
        place is not None and not place.startswith(OWN) and not Path(place).exists()
        for place in places
    )


def _from_hub(dataset: DatasetConfig) -> bool:
    kinds = {kind_of(dataset.source)}
    kinds |= {part.get("source", {}).get("kind") for part in dataset.parts.values()}
    return "hub" in kinds
