"""``model=ORG/NAME`` and ``model=FOLDER``: a base named directly, without an option of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from sizewise.config import conf_dir
from sizewise.models.sources import HUB_ID

_MODEL = re.compile(r"model=(?P<quote>['\"]?)(?P<value>[^'\"]+)(?P=quote)")


def spelt_out(overrides: Iterable[str]) -> list[str]:
    """Return overrides in which a base that is named directly is ``model=local`` with its path.

    ``model.name`` is the last part of the hub id or folder, unless an override names it.
    """
    texts = list(overrides)
    named = any(text.lstrip("+").startswith("model.name=") for text in texts)
    return [part for text in texts for part in _spelt_out(text, named)]


def _spelt_out(text: str, named: bool) -> list[str]:
    found = _MODEL.fullmatch(text)
    if found is None or not _is_place(found["value"]):
        return [text]
    value = found["value"]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(value).expanduser().resolve().name)
    parts = ["model=local", f"model.path='{value}'"]
    return parts if named else [*parts, f"model.name='{name}'"]


def _is_place(value: str) -> bool:
    """Whether a value that is no option is written like a hub id or a path."""
    if "," in value or (conf_dir() / "model" / f"{value}.yaml").is_file():
        return False
    path = value.startswith((".", "/", "~")) or Path(value).expanduser().is_dir()
    return path or ("/" in value and HUB_ID.match(value) is not None)
