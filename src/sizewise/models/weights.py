"""Which base a configuration names, by the content of what is local of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sizewise.errors import ModelError
from sizewise.file_hash import file_hash
from sizewise.models.sources import WEIGHT_FILES, shard_names

_NAMES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "tokenizer.model", "spiece.model", "chat_template.jinja",
)  # fmt: skip


def weights_fingerprint(path: str, revision: str | None = None, commit: str | None = None) -> str:
    """Identify a base's weights (16 hex digits of content, or the hub's id and commit).

    Args:
        path: a local directory, or a hub id.
        revision: the revision asked of the hub.
        commit: the commit the hub resolved it to (``config._commit_hash``), where known.

    Raises:
        ModelError: a local directory holds no safetensors file.
    """
    folder = Path(path)
    if not folder.is_dir():
        return f"{path}@{commit or revision or 'main'}"
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"{path} holds no *.safetensors file, the only weight format read here.")
    return folder_fingerprint(folder)


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that a base is loaded from, not copies in another layout."""
    if (folder / WEIGHT_FILES[0]).is_file():
        return [folder / WEIGHT_FILES[0]]
    index = folder / WEIGHT_FILES[1]
    if not index.is_file():
        return sorted(folder.glob("*.safetensors"))
    return [folder / name for name in shard_names(index) if (folder / name).is_file()]


def folder_fingerprint(folder: Path) -> str:
    """Hash the weights, configuration, tokenizer and template of a folder (16 hex digits)."""
    named = [folder / name for name in _NAMES if (folder / name).is_file()]
    digest = hashlib.sha256()
    for file in [*named, *sorted(folder.glob("*.safetensors"))]:
        line = f"{file.name}:{file.stat().st_size}:{file_hash(file, sampled=True)}\n"
        digest.update(line.encode())
    return digest.hexdigest()[:16]


def local_content(model: Mapping[str, Any]) -> str | None:
    """Hash what a model's configuration names on this machine (16 hex digits); None for nothing.

    That is the folder of ``path``, the folder of ``tokenizer`` and the file of ``chat_template``.
    What the package itself brings (``embedded:NAME``) is no such thing.
    """
    found = []
    for key in ("path", "tokenizer"):
        folder = Path(str(model.get(key) or "")).expanduser()
        if model.get(key) and folder.is_dir():
            found.append(f"{key}:{folder_fingerprint(folder)}")
    template = Path(str(model.get("chat_template") or "")).expanduser()
    if template.suffix and template.is_file():
        found.append(f"chat_template:{file_hash(template)}")
    return hashlib.sha256("\n".join(found).encode()).hexdigest()[:16] if found else None


def check_local_content(model: Mapping[str, Any]) -> None:
    """Raise ModelError if the files of a base are no longer those of ``model.content``."""
    planned, found = model.get("content"), local_content(model)
    if planned and found and planned != found:
        raise ModelError(
            f"model.path={model['path']!r} (or its tokenizer or template) holds something else "
            f"({found}) than when this run was planned ({planned}). Start the command again: with "
            "changed files it is another run. The old run needs the old files."
        )
