"""Classes that a configuration names (``_target_``): what may be built, and what a record may ask.

Everything that is built from a configuration is built by ``build``. A record (the files of a run
directory) is data, whoever wrote it: see ``recorded_config`` and SECURITY.md.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from omegaconf.errors import OmegaConfBaseException

from sizewise.config.endpoint import is_local
from sizewise.config.evaluation import ServerConfig
from sizewise.config.register import explain, to_run_config
from sizewise.config.run import RunConfig
from sizewise.errors import ConfigError

TARGET = "_target_"
OWN = "sizewise."
SHIPPED = (OWN, "pytorch_lightning.callbacks.", "torch.optim.")
REMOTE_CODE = "trust_remote_code=true (evaluate.py: model.trust_remote_code=true)"
OF_HYDRA = (TARGET, "_convert_", "_recursive_")  # the last two change nothing for plain values


def build(node: Any, key: str, *kinds: type) -> Any:
    """Build what a ``_target_`` node names from plain values; ``key`` is where it stands.

    The class is looked up, and has to be one of ``kinds``, before anything is called.

    Raises:
        ConfigError: there is no such class, it is another kind, its arguments do not suit it, or
            they name a further class.
    """
    kind, arguments = _named(node, key, kinds)
    try:
        return kind(**arguments)
    except Exception as error:
        raise ConfigError(f"{key} ({node[TARGET]}) cannot be built: {error}") from error


def check_node(node: Any, key: str, *kinds: type) -> type:
    """Return the class that ``build`` would call, and check its arguments' names; call nothing.

    Raises:
        ConfigError: as ``build``.
    """
    kind, arguments = _named(node, key, kinds)
    try:
        inspect.signature(kind).bind(**arguments)
    except TypeError as error:
        raise ConfigError(f"{key} ({node[TARGET]}) cannot be built: {error}") from error
    return kind


def _named(node: Any, key: str, kinds: tuple[type, ...]) -> tuple[type, dict[str, Any]]:
    if not isinstance(node, Mapping) or TARGET not in node:
        raise ConfigError(f"{key} has no {TARGET}. Name the class of the {_group(key)} there.")
    missing = [name for name, value in node.items() if value == "???"]
    if missing:
        raise ConfigError(f"{key}.{missing[0]} has no default. Give it a value.")
    arguments = {name: value for name, value in node.items() if name not in OF_HYDRA}
    for where, name in named_targets(arguments, key):
        raise ConfigError(f"{where}={name!r}: {key} itself names a class, its values may not.")
    return find_class(str(node[TARGET]), key, kinds), arguments


def find_class(target: str, key: str, kinds: tuple[type, ...] = (object,)) -> type:
    """Look up a class by its import path; ConfigError where it is none, or none of ``kinds``."""
    from hydra.utils import get_class

    try:
        found = get_class(target)
    except Exception as error:
        cause = error.__cause__ or error
        raise ConfigError(f"{key} ({target}) cannot be built: {cause}") from error
    if not issubclass(found, kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        places = " or ".join(f"{kind.__module__}.{kind.__qualname__}" for kind in kinds)
        raise ConfigError(f"{key} ({target}) is no {names}. Derive it from {places}.")
    return found


def _group(key: str) -> str:
    return key.rpartition(".")[0] or key


def named_targets(node: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield every ``_target_`` at or below a node, as dotted key and value."""
    return ((where, str(value)) for where, value in _values(node, key, TARGET))


def _values(node: Any, key: str, wanted: str) -> Iterator[tuple[str, Any]]:
    """Yield dotted key and value of all at or below a node that is called ``wanted``."""
    if isinstance(node, Mapping):
        if wanted in node:
            yield f"{key}.{wanted}", node[wanted]
        for name, value in node.items():
            yield from _values(value, f"{key}.{name}" if key else str(name), wanted)
    elif isinstance(node, (list, tuple)):
        for number, value in enumerate(node):
            yield from _values(value, f"{key}.{number}", wanted)


def check_own(node: Any, key: str, trust: bool = False) -> None:
    """Raise ConfigError for a class that is not sizewise's, unless somebody said ``trust``."""
    for where, target in named_targets(node, key):
        if not trust and not target.startswith(OWN):
            raise ConfigError(
                f"{where}={target!r} stands in the record of a run and is no class of sizewise: "
                "it would run somebody's code. If you trust the run, add --trust (evaluate.py: "
                "trust=true)."
            )


def recorded_config(config: Mapping[str, Any], remote_code: bool = False) -> RunConfig:
    """Type a configuration out of a record: its texts are texts, and it lets no code in.

    Interpolations stay as they are written. Whether code that comes with the base may run is said
    by ``remote_code`` (what the user has typed now), never by the record. A kernel of the hub is
    refused (ConfigError), and the server of ``evaluation.server``, which may be a command, is
    forgotten.
    """
    try:
        cfg = to_run_config(_literal(dict(config)))
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    attention = cfg.model.attn_implementation
    if "/" in attention and not remote_code:
        raise ConfigError(
            f"model.attn_implementation={attention!r} stands in the record of a run and is a "
            f"kernel of the hub: it would run somebody's code. If you trust it, add {REMOTE_CODE}."
        )
    return replace(
        cfg,
        trust=False,
        model=replace(cfg.model, trust_remote_code=remote_code),
        evaluation=replace(cfg.evaluation, server=ServerConfig()),
    )


def _literal(value: Any) -> Any:
    """Escape what OmegaConf would read as an interpolation."""
    if isinstance(value, Mapping):
        return {key: _literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_literal(item) for item in value]
    return _escaped(value) if isinstance(value, str) and "${" in value else value


def _escaped(text: str) -> str:
    head, *parts = text.split("${")
    for part in parts:  # backslashes before an interpolation are themselves escaped
        slashes = len(head) - len(head.rstrip("\\"))
        head += "\\" * slashes + "\\${" + part
    return head


def foreign_code(config: Mapping[str, Any]) -> list[str]:
    """Name what a configuration would run that is neither sizewise's nor among its options.

    Also every server on another machine (of the model, a judge, a teacher; spelt out by
    ``composition.inputs.pinned``): it would get texts, and the key that the configuration names.
    """
    model, optimizer = config.get("model") or {}, config.get("optimizer") or {}
    found = [*named_targets(config, ""), ("optimizer.target", str(optimizer.get("target")))]
    lines = [f"{key}={target}" for key, target in found if not target.startswith(SHIPPED)]
    lines += [f"model.{k}=true" for k in ("trust_remote_code",) if model.get(k)]
    if "/" in str(model.get("attn_implementation")):
        lines.append(f"model.attn_implementation={model['attn_implementation']}")
    command = ((config.get("evaluation") or {}).get("server") or {}).get("command")
    if command:
        lines.append(f"evaluation.server.command={command}")
    servers = _values(config, "", "base_url")
    lines += [f"{key}={url}" for key, url in servers if url and not is_local(str(url))]
    return [*lines, *(["trust=true"] if config.get("trust") else [])]
