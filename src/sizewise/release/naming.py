"""What a base is called outside this machine."""

from __future__ import annotations

from pathlib import Path

from sizewise.models.sources import EMBEDDED, HUB_ID


def is_on_hub(path: str) -> bool:
    """Whether ``model.path`` is a hub id, and no folder of this machine."""
    return HUB_ID.match(path) is not None and not Path(path).expanduser().is_dir()


def public_name(path: str) -> str:
    """Return ``model.path`` without what only this machine knows: of a folder, its name."""
    if path.startswith(EMBEDDED) or is_on_hub(path):
        return path
    return Path(path).expanduser().name
