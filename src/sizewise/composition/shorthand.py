"""What a command line may say in short: a base by its place, a kind of task, lists of bases."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from sizewise.config import conf_dir
from sizewise.config.checks import one_of
from sizewise.config.data import TASKS
from sizewise.models.sources import HUB_ID, is_gguf

_MODEL = re.compile(r"model=(?P<quote>['\"]?)(?P<value>[^'\"]+)(?P=quote)")
_TASK = re.compile(r"\+{0,2}dataset\.task=(.*)")
_BASES = re.compile(r"(sweep\.(?:general|specialised)=)([^\[\]'\"]+,[^\[\]'\"]+)")


def spelt_out(overrides: Iterable[str]) -> list[str]:
    """Return overrides in which what was said in short stands in full.

    ``model=ORG/NAME``, ``model=FOLDER`` and ``model=FILE.gguf`` are ``model=local`` with that path;
    ``model.name`` is the last part of the hub id or path, unless an override names it.
    ``dataset.task=KIND`` are its metrics and what decides, except for what another override says. A
    comma-separated list of
    ``sweep.general`` or ``sweep.specialised`` is one list and no grid.

    Raises:
        ConfigError: there is no such kind of task.
    """
    texts = list(overrides)
    keys = {text.lstrip("+").partition("=")[0] for text in texts}
    return [part for text in texts for part in _spelt_out(text, keys)]


def _spelt_out(text: str, keys: set[str]) -> list[str]:
    if (task := _TASK.fullmatch(text)) is not None:
        return _task(task[1].strip("'\""), keys)
    if (bases := _BASES.fullmatch(text)) is not None:
        return [f"{bases[1]}[{bases[2]}]"]
    found = _MODEL.fullmatch(text)
    if found is None or not _is_place(found["value"]):
        return [text]
    value = found["value"]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(value).expanduser().resolve().name)
    parts = ["model=local", f"model.path='{value}'"]
    return parts if "model.name" in keys else [*parts, f"model.name='{name}'"]


def _task(kind: str, keys: set[str]) -> list[str]:
    one_of("dataset.task", kind, TASKS)
    settings = TASKS[kind].overrides()
    return [f"{key}={value}" for key, value in settings.items() if key not in keys]


def shell_text(key: str, value: str) -> str:
    """Write an override with any text as its value, quoted for Hydra and for bash or zsh."""
    # Hydra reads a backslash as one, except where a quote follows.
    quoted = re.sub(r'(\\*)("|$)', lambda m: m[1] * 2 + ('\\"' if m[2] else ""), value)
    text = f'{key}="{quoted}"'
    if "\n" not in text and "'" not in text:
        return f"'{text}'"
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"$'{escaped}'"


def _is_place(value: str) -> bool:
    """Whether a value that is no option is written like a hub id or a path."""
    options = (conf_dir(), Path("conf"))  # the shipped ones, and those of the folder one is in
    if "," in value or any((place / "model" / f"{value}.yaml").is_file() for place in options):
        return False
    path = value.startswith((".", "/", "~")) or Path(value).expanduser().is_dir() or is_gguf(value)
    return path or ("/" in value and HUB_ID.match(value) is not None)
