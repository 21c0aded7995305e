"""Composition outside of ``hydra.main``: for commands, tests and programs."""

from __future__ import annotations

import numbers
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from sizewise.composition.jobs import compose_job
from sizewise.config.register import conf_dir, explained, register_schema, to_run_config
from sizewise.config.run import RunConfig
from sizewise.errors import ConfigError

_composing = threading.RLock()  # Hydra has one state for the whole process


@contextmanager
def initialized(overrides: Sequence[str]) -> Iterator[None]:
    """Let Hydra compose from sizewise's options; what it was set up for before is back afterwards.

    One thread at a time: another waits until the block is left.

    Raises:
        ConfigError: what Hydra says of ``overrides`` inside the block.
    """
    from sizewise.composition.resolvers import register_resolvers

    with _composing:
        register_schema()
        register_resolvers()
        theirs, before = GlobalHydra.instance(), GlobalHydra.instance().hydra
        theirs.clear()
        folder = str(conf_dir())
        try:
            with explained(overrides), initialize_config_dir(version_base="1.3", config_dir=folder):
                yield
        finally:
            GlobalHydra.set_instance(theirs)
            theirs.hydra = before


def compose_config(overrides: Sequence[str] = (), config_name: str = "train") -> dict[str, Any]:
    """Compose one job as resolved plain values, from overrides as of ``train.py``.

    Options that were composed before, from files that are as they were, are not composed again.

    Raises:
        ConfigError: an override is wrong.
    """
    with initialized(overrides):
        return compose_job(overrides, config_name)


def compose_run(overrides: Sequence[str] = (), config_name: str = "train") -> RunConfig:
    return to_run_config(compose_config(overrides, config_name), check_types=False)


_PLAIN = re.compile(r"(?!(?:null|true|false|nan|inf)$)[A-Za-z_][\w./-]*", re.I | re.A)


def override_of(key: str, value: Any, choices: bool = False) -> str:
    """Write a value of Python as an override; ``choices``: a list is one job per element."""
    value = _of_python(value)
    if choices and isinstance(value, list | tuple):
        return f"{key}={','.join(map(_literal, value))}"
    return f"{key}={_literal(value)}"


def _literal(value: Any) -> str:
    value = _of_python(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, numbers.Integral):
        return repr(int(value))
    if isinstance(value, numbers.Real):
        return repr(float(value))
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_name(k)}:{_literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple | set | frozenset | range):
        return "[" + ",".join(map(_literal, value)) + "]"
    text = str(value)
    return text if _PLAIN.fullmatch(text) else quoted(text)


def _of_python(value: Any) -> Any:
    """Return a number or an array of NumPy, torch or pandas as numbers and lists of Python."""
    return value.tolist() if hasattr(value, "tolist") else value


def _name(key: Any) -> str:
    if not _PLAIN.fullmatch(str(key)):
        raise ConfigError(f"{key!r} is no name of a key. Use letters, digits and underscores.")
    return str(key)


def quoted(text: object) -> str:
    """Write a text as a value for Hydra, which ends a string at the first quote that is bare."""
    plain = re.sub(r"(\\+)(?='|$)", r"\1\1", str(text))  # those before a quote are read as escapes
    return "'" + plain.replace("'", "\\'") + "'"
