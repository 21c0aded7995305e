"""Models that a job asks beside its own, a judge or a teacher; they are named as ``model=`` is.

``mini`` (an option), ``ORG/NAME`` or ``FOLDER`` (a base), ``DIR`` (a finished run, with its
adapter), or a mapping: ``{option: endpoint, base_url: …, path: …}``, ``{option: qwen3_32b,
quantization: nf4}``. Planning spells each out whole, so that a record says who was asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sizewise.config import ModelConfig, QuantizationConfig, conf_dir
from sizewise.config.endpoint import is_local
from sizewise.config.register import explain
from sizewise.config.suggest import options_of
from sizewise.errors import ConfigError
from sizewise.files import hash_text, key_text
from sizewise.models.sources import HUB_ID, folder_fingerprint, local_content
from sizewise.record.directories import RunDir
from sizewise.record.identity import canonical_config, is_taught

JUDGE = "sizewise.metrics.judge.Judge"
TEACHER = "dataset.teacher"
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
FAMILIES = ("causal", "seq2seq", "endpoint")


@dataclass(frozen=True)
class Other:
    """A model that is asked beside the job's own; ``adapter`` is the directory of one, if any."""

    model: ModelConfig
    quantization: QuantizationConfig
    adapter: str | None = None


def spelt_other(value: Any, key: str) -> dict[str, Any]:
    """Spell out how a model is named at ``key``, as plain values; what is spelt out stays.

    Raises:
        ConfigError: there is no such option, or a value of it is wrong.
    """
    if isinstance(value, Mapping):
        return dict(value) if isinstance(value.get("model"), Mapping) else _of_option(value, key)
    text = str(value).strip()
    folder = Path(text).expanduser()
    if _option_file("model", text) is not None:
        return _of_option({"option": text}, key)
    if RunDir(folder).config.is_file():
        return _of_run(folder, key)
    if not (folder.is_dir() or (HUB_ID.match(text) and "/" in text)):
        names = ", ".join(options_of("model", [conf_dir()]))
        raise ConfigError(
            f"{key}={text!r} is no option of model, no folder, no run and no hub id (owner/name). "
            f"Options: {names}."
        )
    return _of_option({"option": "local", "path": text, "name": plain_name(text)}, key)


def plain_name(place: str) -> str:
    """Return a short name of a place: its last part, of letters, digits, dots and dashes."""
    last = place.rstrip("/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-.") or "model"


def other_model(value: Any, key: str) -> Other:
    """Return the model that is named at ``key``; ConfigError where it cannot be asked."""
    said = spelt_other(value, key)
    model = cast(ModelConfig, _typed(ModelConfig, f"{key}.model", said["model"]))
    stored = said.get("quantization") or {}
    quantization = cast(QuantizationConfig, _typed(QuantizationConfig, key, stored))
    if model.family not in FAMILIES:
        raise ConfigError(
            f"{key} is model={model.name} of family {model.family}, which writes no text. Choose a "
            "language model or an endpoint."
        )
    if model.trust_remote_code or "/" in model.attn_implementation:
        raise ConfigError(f"{key}: a model that is asked beside the job's own runs no hub's code.")
    return Other(model, quantization, said.get("adapter"))


def judges_of(models: Any, key: str = "metric.judge.models") -> dict[str, Any]:
    """Return judges by name: one, a list of them, or a mapping of names to them."""
    if isinstance(models, Mapping) and not {"option", "model"} & set(models):
        found = {str(name): value for name, value in models.items()}
    else:
        every = models if isinstance(models, (list, tuple)) else [models]
        found = {_name_of(value): value for value in every}
        if len(found) < len(every):
            raise ConfigError(f"{key}: two judges have one name. Give {key}={{NAME: …, NAME: …}}.")
    odd = [name for name in found if not PLAIN_NAME.fullmatch(name)]
    if odd or not found:
        raise ConfigError(
            f"{key}: {odd[0]!r} is no name of a judge (letters, digits, dots and dashes)."
            if odd
            else f"{key} names no judge. Give a model, or several."
        )
    return found


def _name_of(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = value.get("model") if isinstance(value.get("model"), Mapping) else value
        named = cast(Mapping[str, Any], inner)
        return plain_name(str(named.get("name") or named.get("path") or named.get("option")))
    return plain_name(str(value))


def pin_others(config: dict[str, Any]) -> None:
    """Spell out in place every judge and teacher of a configuration (plain values)."""
    for node in judge_nodes(config):
        if node.get("models") not in (None, "???"):
            judges = judges_of(node["models"])
            node["models"] = {
                name: spelt_other(value, f"metric.judge.models.{name}")
                for name, value in judges.items()
            }
    dataset = config.get("dataset")
    if isinstance(dataset, dict) and dataset.get("teacher") is not None:
        dataset["teacher"] = spelt_other(dataset["teacher"], TEACHER)


def judge_nodes(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the nodes of ``metric`` that are judges."""
    for node in (config.get("metric") or {}).values():
        if isinstance(node, dict) and node.get("_target_") == JUDGE:
            yield node


def check_recorded_judges(metrics: Mapping[str, Any], trust: bool = False) -> None:
    """As ``check_recorded_server``, of every judge.

    Raises:
        ConfigError: also for a judge that cannot be.
    """
    for node in judge_nodes({"metric": metrics}):
        for name, value in judges_of(node.get("models")).items():
            key = f"metric.judge.models.{name}"
            check_recorded_server(key, other_model(value, key).model, trust)


def check_recorded_server(key: str, model: ModelConfig, trust: bool = False) -> None:
    """Refuse a server elsewhere that a record names, unless somebody said ``trust``.

    It would get this machine's texts, and whichever key of the environment the record names.

    Raises:
        ConfigError: the model is behind such a server.
    """
    if not (model.has_weights or trust or is_local(model.base_url or "")):
        raise ConfigError(
            f"{key} stands in the record of a run and is a server ({model.base_url}): texts and a "
            "key would go there. If you trust the run, add --trust (evaluate.py: trust=true)."
        )


def judge_key(node: Mapping[str, Any], name: str) -> str:
    """Name what a judge's answers depend on, in any run: who it is, and how it is asked."""
    plain = canonical_config({"metric": {"judge": dict(node)}})["metric"]["judge"]
    judges = judges_of(plain.get("models"))
    parts = [judges.get(name), plain.get("prompt")]
    return hash_text(key_text(parts), 16)


def panel_key(node: Mapping[str, Any]) -> str:
    """Name a whole panel: its judges, how they are asked, and against whom."""
    plain = canonical_config({"metric": {"judge": dict(node)}})["metric"]["judge"]
    return hash_text(key_text(plain), 16)


def others_of(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield key and name of every further model of a configuration."""
    for node in judge_nodes(config):
        for name, value in judges_of(node.get("models")).items():
            yield f"metric.judge.models.{name}", value
    dataset = config.get("dataset") or {}
    if is_taught(dataset):
        yield TEACHER, dataset["teacher"]


def _of_option(value: Mapping[str, Any], key: str) -> dict[str, Any]:
    rest = dict(value)
    option = rest.pop("option", None) or ("endpoint" if rest.get("base_url") else "local")
    stored = rest.pop("quantization", "none")
    if isinstance(stored, str):
        stored = _read_option("quantization", stored, key)
    if "name" not in rest and "path" in rest and option in ("local", "endpoint"):
        rest["name"] = plain_name(str(rest["path"]))
    merged = OmegaConf.merge(_read_option("model", str(option), key), rest)
    model = cast(ModelConfig, _typed(ModelConfig, key, merged))
    return _spelt(model, cast(QuantizationConfig, _typed(QuantizationConfig, key, stored)))


def _of_run(folder: Path, key: str) -> dict[str, Any]:
    try:
        config = yaml.safe_load(RunDir(folder).config.read_text(encoding="utf-8"))
        nodes = config["model"], config["quantization"], config["lora"]["method"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise ConfigError(f"{key}={str(folder)!r}: its configuration cannot be read.") from error
    model = cast(ModelConfig, _typed(ModelConfig, key, nodes[0]))
    stored = cast(QuantizationConfig, _typed(QuantizationConfig, key, nodes[1]))
    found = _spelt(replace(model, trust_remote_code=False), stored)
    if nodes[2] == "none":
        return found
    adapter = RunDir(folder).adapter
    if not adapter.is_dir():
        raise ConfigError(f"{key}={str(folder)!r} has not finished training. Start it again first.")
    return {**found, "adapter": str(adapter), "adapter_content": folder_fingerprint(adapter)}


def _spelt(model: ModelConfig, quantization: QuantizationConfig) -> dict[str, Any]:
    """Return what differs from the defaults, and the content of what lies on this machine."""
    plain = asdict(model)
    if model.has_weights and not model.content:
        plain["content"] = local_content(plain)
    default = asdict(ModelConfig())
    said = {name: value for name, value in plain.items() if value != default[name]}
    return {"model": said, "quantization": asdict(quantization)}


def _option_file(group: str, name: str) -> Path | None:
    places = (Path("conf"), conf_dir())
    files = (
        (place / group / f"{name}.yaml" for place in places) if PLAIN_NAME.fullmatch(name) else ()
    )
    return next((file for file in files if file.is_file()), None)


def _read_option(group: str, name: str, key: str) -> Any:
    file = _option_file(group, name)
    if file is None:
        names = ", ".join(options_of(group, [conf_dir()]))
        raise ConfigError(f"{key}: {group}={name!r} is no option. Options: {names}.")
    return OmegaConf.load(file)


def _typed(kind: type, key: str, values: Any) -> Any:
    try:
        merged = OmegaConf.merge(OmegaConf.structured(kind), values)
        OmegaConf.to_container(merged, throw_on_missing=True)
        return OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{key}: {explain(error)}") from error
