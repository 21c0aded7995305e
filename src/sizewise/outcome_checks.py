"""Is a stored record of the shape that every reader of it relies on?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAPPINGS = ("config", "model", "data", "cost", "base", "validation", "provenance", "files")
OF_DATA = ("sizes", "fingerprints", "dropped", "report")
TEXTS = ("run_id", "identity", "primary", "direction")


def check_record(record: Mapping[str, Any]) -> None:
    """Check the fields of an outcome's record that are mappings or texts.

    Raises:
        TypeError: one is something else; the message names it.
        KeyError: one is not there.
    """
    for name in MAPPINGS:
        _mapping(name, record[name])
    for name in OF_DATA:
        _mapping(f"data.{name}", record["data"][name])
    for name in TEXTS:
        if not isinstance(record[name], str):
            raise TypeError(f"{name} is no text but {record[name]!r}")
    for kind in ("base", "tuned"):
        if kind == "tuned" and record[kind] is None:
            continue
        _mapping(kind, record[kind])
        for name, entry in record[kind].items():
            _evaluation(f"{kind}.{name}", entry)


def _evaluation(where: str, entry: Any) -> None:
    _mapping(where, entry)
    _mapping(f"{where}.scores", entry["scores"])
    for name, value in entry["scores"].items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{where}.scores.{name} is no number but {value!r}")


def _mapping(name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} is no mapping but {value!r}")
