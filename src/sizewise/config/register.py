"""The schema and Hydra: where the options are, registration, conversion, and errors explained."""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from sizewise.config.run import RunConfig
from sizewise.config.suggest import did_you_mean, nearest_options, options_of
from sizewise.errors import ConfigError


def conf_dir() -> Path:
    """Return the folder of YAML options: the checkout's, else the installed package's copy."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package.parents[1] / "conf", package / "_shipped" / "conf"):
        if (candidate / "train.yaml").is_file():
            return candidate
    raise ConfigError(
        f"No folder of configuration options was found beside the package at {package}. "
        "Reinstall sizewise, or run from a checkout."
    )


def explain(error: BaseException) -> str:
    """Return one line for an error of composition; search paths and type names are left out."""
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        return _explain_value(cause, str(error))
    in_file, inner = _IN_FILE.match(str(error)), error.__context__
    if in_file is not None and isinstance(inner, OmegaConfBaseException):
        return f"In {in_file[1]}.yaml: {_explain_value(inner, str(error))}"
    if isinstance(error, OverrideParseException):
        said = str(error).split("\nSee ")[0]
        return f"{error.override!r} cannot be read as KEY=VALUE: {said}. Is a quote missing?"
    said = str(error).split("\nConfig search path:")[0]
    unknown = _NO_KEY.match(said)
    if unknown is not None:
        return f"{unknown[1]} is no option.{did_you_mean(unknown[1])} --cfg job prints all keys."
    missing = _NO_OPTION.search(said)
    if missing is None:
        return " ".join(said.split())
    _, _, listed = said.partition("Available options in")  # not where one of a list is missing
    return _no_option_of(missing[1], missing[2], [name.strip() for name in listed.split("\n")[1:]])


_NO_KEY = re.compile(r"Could not override '([^']+)'\.\s+No match in the defaults list")
_IN_FILE = re.compile(r"In '([^']+)': \w+ raised while composing config:")
_NO_OPTION = re.compile(r"Could not (?:find|load) '(.+)/([^/'\n]+)'")
# What to do where no option is so called, by group.
_OWN = {
    "model": (
        "For a model of the Hugging Face hub: model=OWNER/NAME (without an owner: model=local "
        "model.path={name}). For a folder: model=./FOLDER."
    ),
    "dataset": (
        "For a file of your own: sizewise init FILE writes an option for it; or dataset=csv "
        "(jsonl, chat, parquet) dataset.source.path=FILE."
    ),
    "metric": "For a metric of your own: docs/metrics.md.",
    "sweep": "For a sweep of your own: sweeps/sweep/NAME.yaml in the folder you are in.",
}


def _no_option_of(group: str, name: str, known: Sequence[str]) -> str:
    """Say what a group has, what was nearly meant, and how to bring something of one's own."""
    places = (conf_dir(), conf_dir().parent / "sweeps", Path("conf"), Path("sweeps"))
    names = sorted({*filter(None, known), *options_of(group, places)})
    near = [f"{group}={option}" for option in nearest_options(name, names)]
    meant = f" Did you mean {' or '.join(near)}?" if near else ""
    listed = f" Available options in '{group}': {', '.join(names)}." if names else ""
    own = " " + _OWN[group].replace("{name}", name) if group in _OWN else ""
    return f"Could not find '{group}/{name}'.{meant}{own}{listed}"


@contextmanager
def explained(overrides: Sequence[str]) -> Iterator[None]:
    """Turn what Hydra and OmegaConf raise while they compose ``overrides`` into a ConfigError."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error)) from error
    except ValueError as error:
        if "Config group override" not in str(error):
            raise
        odd = [text for text in overrides if _no_option.fullmatch(text) and _is_group(text)]
        raise ConfigError(
            f"{' '.join(odd) or ' '.join(overrides)}: no option of a group is called so. Give "
            "KEY=NAME, such as model=nano (or several names: 'metric=[label,efficiency]')."
        ) from error


_no_option = re.compile(r"[^=]*=(null|true|false|[-+]?[\d.]\S*)", re.IGNORECASE)


def _is_group(override: str) -> bool:
    return (conf_dir() / override.partition("=")[0].strip("+~").partition("@")[0]).is_dir()


def _explain_value(error: OmegaConfBaseException, said: str) -> str:
    key = error.full_key or "the configuration"
    whole = re.match(r"Error merging override [+~]*([^=\s]+)=", said)
    key = whole[1] if whole and whole[1].endswith(f".{key}") else key
    reason = str(error).splitlines()[0]
    if isinstance(error, MissingMandatoryValue) or "missing mandatory value" in reason:
        return f"{key} has no value and needs one. Give {key}=… on the command line."
    if reason.endswith("of type 'float' could not be converted to Integer"):
        part = " For a part of an epoch set trainer.max_steps." if "max_epochs" in key else ""
        return f"{key}={reason.split(chr(39))[1]} is no whole number.{part}"
    fields = getattr(error.object_type, "__dataclass_fields__", None)
    if fields is None or error.key in fields:
        return f"{key}: {reason}"
    return _no_key(key, fields, str(error.key))


def _no_key(key: str, known: Iterable[str], written: str) -> str:
    """``written``: the key as it stands there, without the groups that it is in."""
    if "." in written:  # a dot names a group on the command line only
        *groups, last = written.split(".")
        nested = "".join(f"{name}: {{" for name in groups) + f"{last}: …" + "}" * len(groups)
        return f"{key} is no key of a file. Write it nested: {nested}"
    meant = did_you_mean(key)
    if meant and "." not in key:  # the list would be that of all groups
        return f"{key} is no option.{meant} --cfg job prints all keys."
    return f"{key} is no option.{meant} Known keys there: {', '.join(known)}"


SCHEMA_NAME = "sizewise_schema"


def register_schema() -> None:
    """Put the schema of a job into Hydra's config store, unless it is there."""
    store = ConfigStore.instance()
    if f"{SCHEMA_NAME}.yaml" not in store.repo:
        store.store(name=SCHEMA_NAME, node=_schema(), provider="sizewise")


@cache
def _schema() -> Any:
    """The schema as a configuration; whoever merges into it, or loads it, copies it."""
    return OmegaConf.structured(RunConfig)


def to_run_config(cfg: DictConfig | Mapping[str, Any], check_types: bool = True) -> RunConfig:
    """Turn a configuration into typed objects, running every check of the schema.

    Args:
        cfg: what Hydra composed, or a plain mapping of the same shape (``hydra`` is ignored).
        check_types: also check, and convert, the type of every value. That takes a tenth of a
            second; a sweep of hundreds leaves it out for plain values that were composed already.

    Raises:
        ConfigError: a value is missing, unknown or out of range; the message names the key.
    """
    plain = _checked(cfg) if check_types else cast(Mapping[str, Any], cfg)
    return cast(RunConfig, _build(RunConfig, plain, ""))


def _checked(cfg: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    keys = [str(key) for key in cfg if key != "hydra"]
    if isinstance(cfg, DictConfig):
        return _merged(OmegaConf.masked_copy(cfg, cast(Any, keys)))
    own = {key: cfg[key] for key in keys}
    text = _as_json(own)
    if text is None:
        return _merged(OmegaConf.create(own))
    return deepcopy(_merged_record(text))


def _as_json(cfg: Mapping[str, Any]) -> str | None:
    """Write what can be read back as it is; None for anything else, such as tuples."""
    try:
        text = json.dumps(cfg)
    except TypeError:
        return None
    return text if json.loads(text) == cfg else None


@lru_cache(maxsize=32)
def _merged_record(text: str) -> dict[str, Any]:
    """What stands in a record is checked by every look at it, always with the same end."""
    return _merged(OmegaConf.create(json.loads(text)))


def _merged(own: DictConfig) -> dict[str, Any]:
    """Merge a configuration into the schema; its nodes go into what is merged."""
    try:
        merged = OmegaConf.unsafe_merge(deepcopy(_schema()), own)
        plain = OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    return cast(dict[str, Any], plain)


def _build(kind: type[Any], values: Mapping[str, Any], where: str) -> Any:
    hints = _hints(typing.cast(Any, kind))
    unknown = [key for key in values if key not in hints]
    if unknown:
        raise ConfigError(_no_key(f"{where}{unknown[0]}", hints, str(unknown[0])))
    made = {key: _convert(hints[key], value, f"{where}{key}.") for key, value in values.items()}
    return kind(**made)


def _convert(hint: Any, value: Any, where: str) -> Any:
    if isinstance(value, Mapping):
        kind = next((item for item in _members(hint) if dataclasses.is_dataclass(item)), None)
        if kind is not None:
            return _build(typing.cast(type[Any], kind), value, where)
        arguments = typing.get_args(hint)
        if len(arguments) == 2 and dataclasses.is_dataclass(arguments[1]):
            item = typing.cast(type[Any], arguments[1])
            return {key: _build(item, node, f"{where}{key}.") for key, node in value.items()}
    return value


def _members(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)
