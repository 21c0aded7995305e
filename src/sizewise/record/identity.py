"""Identity of a run: a hash of its whole resolved configuration, less what cannot change it."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from sizewise.config import LoraConfig, RunConfig
from sizewise.files import hash_text, key_text, parse_json, write_atomically
from sizewise.record.directories import RunDir

# Where things are written, who is told, and on what the job runs: none of it changes the result.
VOLATILE = (
    "hydra", "paths", "logger", "sweep", "evaluation.retries",
    "evaluation.timed_answers", "report", "save_data", "trust",
    "model.budget", "model.device_map", "evaluation.server",
    *(f"model.endpoint.{key}" for key in (
        "api_key_env", "concurrency", "timeout", "retry_seconds", "requests_per_minute",
    )),
)  # fmt: skip
VOLATILE_TRAINER = (
    "accelerator",
    "strategy",
    "num_threads",
    "log_every",
    "progress_bar",
    "checkpoint_every",
    "keep_last_checkpoint",
)
DESCRIPTIVE = ("model.license", "model.gated", "model.suggested_lr", "dataset.license")
# What a run that trains nothing still takes from the trainer.
SCORING_TRAINER = ("batch_size", "precision", "deterministic")
# Options younger than some runs: unused, they leave the names of all runs as they were.
OPTIONAL = (
    "model.content", "model.added_tokens", "evaluation.candidates_sha256", "model.base_url",
    "model.parameters",
    "evaluation.answer_validation", "evaluation.engine", "evaluation.candidates_on",
    "lora.layers_to_transform", "lora.rank_pattern", "lora.alpha_pattern", "lora.modules_to_save",
)  # fmt: skip
UNUSED: tuple[Any, ...] = (None, "none", "", [], {})
# The defaults of the time when such runs were first named.
FIRST = {"alpha_ratio": 2.0, "dropout": 0.05}
NO_ADAPTER = {k: v for k, v in (asdict(LoraConfig()) | FIRST).items() if k != "method"}
HASH_LENGTH = 12
PART_LENGTH = 36


@dataclass(frozen=True)
class Identity:
    """Name of a run. ``hash`` has 12 hexadecimal digits; ``slug`` is a flat, legal directory name.

    ``config`` is the canonical configuration that was hashed.
    """

    hash: str
    slug: str
    config: Mapping[str, Any]


def plain_config(cfg: DictConfig | RunConfig) -> dict[str, Any]:
    """Return the job's configuration as resolved plain values, without Hydra's own node."""
    if is_dataclass(cfg):
        return asdict(cfg)
    # Resolved in place: interpolations may point at nodes that are left out afterwards.
    return {str(key): plain_node(cfg, str(key)) for key in cfg if key != "hydra"}


def plain_node(cfg: DictConfig, key: str) -> Any:
    """Return one top-level node as resolved plain values; a missing value is an error."""
    value = cfg[key]
    if OmegaConf.is_config(value):
        return OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
    return value


def plain_copy(values: dict[str, Any]) -> dict[str, Any]:
    """Copy nested plain values of this process, several times as fast as ``deepcopy`` does."""
    copied: dict[str, Any] = pickle.loads(pickle.dumps(values, pickle.HIGHEST_PROTOCOL))
    return copied


def run_identity(config: Mapping[str, Any] | RunConfig) -> Identity:
    """Name a run by its resolved configuration, plain values as of ``plain_config``.

    The identity is the same for every configuration that describes the same work.
    """
    plain = asdict(config) if isinstance(config, RunConfig) else dict(config)
    canonical = canonical_config(plain)
    text = json.dumps(canonical, sort_keys=True, ensure_ascii=False, default=str)
    digest = hash_text(text, HASH_LENGTH)
    return Identity(digest, f"{_readable(canonical)}_{digest}", canonical)


def write_config(config: Mapping[str, Any], run_dir: Path) -> None:
    """Write the resolved configuration, once: a run that goes on keeps the file it has."""
    path = RunDir(run_dir).config
    if not path.is_file():
        write_atomically(path, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


def canonical_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Drop volatile keys, and what does not apply to a run that trains nothing."""
    kept = plain_copy({key: value for key, value in config.items() if key not in VOLATILE})
    for dotted in (*VOLATILE, *DESCRIPTIVE, *(f"trainer.{key}" for key in VOLATILE_TRAINER)):
        _drop(kept, dotted)
    trainer = kept.get("trainer")
    if isinstance(trainer, dict):
        # The split into devices and nodes is hardware; their product is part of the batch.
        trainer["world"] = (trainer.pop("devices", 1) or 1) * (trainer.pop("num_nodes", 1) or 1)
    if not kept.get("dry_run"):
        kept.pop("dry_run", None)
    if (kept.get("lora") or {}).get("method") == "full":
        # There is no adapter, so its options make no difference, whatever they are set to.
        kept["lora"] = {key: NO_ADAPTER.get(key, value) for key, value in kept["lora"].items()}
    if (kept.get("model") or {}).get("family") != "endpoint":
        _drop(kept, "model.endpoint")
    for dotted in OPTIONAL:
        group, key = dotted.split(".")
        if (kept.get(group) or {}).get(key) in UNUSED:
            _drop(kept, dotted)
    for dataset in (kept.get("dataset"), *(kept.get("eval_dataset") or {}).values()):
        _canonical_teacher(dataset, trains(kept))
    target = (kept.get("lora") or {}).get("target")
    if isinstance(target, list):
        kept["lora"]["target"] = ",".join(map(str, target))
    if not trains(kept):
        _drop_training(kept)
    for key in ("run", "adapter"):
        if kept.get(key):
            kept[key] = _content_of(str(kept[key]))
    for metric in (kept.get("metric") or {}).values():
        models = metric.get("models") if isinstance(metric, dict) else None
        for other in models.values() if isinstance(models, dict) else ():
            _drop_volatile_of(other)
        if isinstance(metric, dict) and metric.get("against"):
            metric["against"] = _content_of(str(metric["against"]))
    return kept


def _canonical_teacher(dataset: Any, trains: bool) -> None:
    """Leave out a teacher that teaches nothing; say whose answers are trained on where one does."""
    if not isinstance(dataset, dict) or "teacher" not in dataset:
        return
    if not is_taught(dataset) or not trains:
        for key in ("teacher", "answers_from", "teaching"):
            dataset.pop(key, None)
        return
    dataset["answers_from"] = dataset.get("answers_from") or "teacher"
    _drop_volatile_of(dataset["teacher"])


def _drop_volatile_of(other: Any) -> None:
    """Leave of a judge or teacher what its answers depend on."""
    if isinstance(other, dict) and isinstance(other.get("model"), dict):
        for dotted in (*VOLATILE, *DESCRIPTIVE):
            _drop(other, dotted)
        if "adapter_content" in other:
            other.pop("adapter", None)


def is_taught(dataset: Mapping[str, Any]) -> bool:
    """Whether a teacher writes training answers, as ``DatasetConfig.is_taught``."""
    return dataset.get("teacher") is not None and dataset.get("answers_from") != "gold"


def trains(config: Mapping[str, Any]) -> bool:
    method = (config.get("lora") or {}).get("method", "lora")
    return method != "none" and config.get("stage", "full") != "evaluate"


def asks_untouched(config: Mapping[str, Any]) -> bool:
    """Whether the untouched model answers, too; without training nobody else does."""
    return (config.get("evaluation") or {}).get("zero_shot", True) or not trains(config)


def reuse_key(config: Mapping[str, Any]) -> str:
    """Name what a worker keeps loaded between jobs: base, quantisation and data."""
    model = config.get("model") or {}
    parts = (model, config.get("quantization"), (config.get("dataset") or {}).get("name"))
    return key_text(parts)


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one level of dotted keys."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flatten(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def differing_keys(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Name the dotted keys at which two configurations differ, with both values."""
    lines: list[str] = []
    for key in sorted({*old, *new}):
        name, before, after = f"{prefix}{key}", old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += differing_keys(before, after, f"{name}.")
        elif before != after:
            lines.append(f"{name}: {before!r} → {after!r}")
    return lines


def _drop(config: dict[str, Any], dotted: str) -> None:
    *parents, last = dotted.split(".")
    node: Any = config
    for key in parents:
        node = node.get(key) if isinstance(node, dict) else None
    if isinstance(node, dict):
        node.pop(last, None)


def _drop_training(config: dict[str, Any]) -> None:
    config["lora"] = {"method": "none"}
    for key in ("optimizer", "scheduler", "callbacks"):
        config.pop(key, None)
    trainer = config.get("trainer") or {}
    config["trainer"] = {key: trainer[key] for key in SCORING_TRAINER if key in trainer}
    if (config.get("evaluation") or {}).get("batch_size") is not None:
        config["trainer"].pop("batch_size", None)
    # Decoding and few-shot examples have seeds of their own; random weights are the one use left.
    if (config.get("model") or {}).get("init", "pretrained") == "pretrained" and not (
        (config.get("dataset") or {}).get("few_shot")
    ):
        config.pop("seed", None)


def _content_of(location: str) -> str:
    """Name a finished run or an adapter by its content where it is local, else as it is given."""
    path = Path(location)
    outcome = RunDir(path).outcome
    weights = path / "adapter_model.safetensors"
    if outcome.is_file():
        try:
            return f"run:{parse_json(outcome.read_text(encoding='utf-8'))['identity']}"
        except (ValueError, KeyError, TypeError):
            return f"path:{path.resolve().as_posix()}"
    if weights.is_file():
        return f"adapter:{hashlib.sha256(weights.read_bytes()).hexdigest()[:16]}"
    return f"path:{path.resolve().as_posix()}" if path.exists() else location


def _readable(config: Mapping[str, Any]) -> str:
    if config.get("run"):  # base and data are those of the run, not those named here
        return f"evaluated_{_clean(str(config['run']).removeprefix('run:'))}"
    quantization = str((config.get("quantization") or {}).get("method", "none"))
    parts = [
        _clean((config.get("model") or {}).get("name", "model")),
        _clean((config.get("dataset") or {}).get("name", "data")),
        _subject(config),
        "" if quantization == "none" else quantization,
        "" if config.get("stage", "full") == "full" else str(config["stage"]),
        f"s{config['seed']}" if "seed" in config else "",
    ]
    return "_".join(part for part in parts if part)


def _subject(config: Mapping[str, Any]) -> str:
    if config.get("adapter"):
        return "adapter"
    lora = config.get("lora") or {}
    method = str(lora.get("method", "none"))
    if method == "none":
        return "base"
    return f"{method}-r{lora['r']}" if method != "full" and "r" in lora else method


def _clean(value: object) -> str:
    text = re.sub(r"[^A-Za-z0-9.]+", "-", str(value)).strip("-.")
    return text[:PART_LENGTH] or "x"
