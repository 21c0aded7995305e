"""Columns of a row as text: names that tolerate spaces, templates, white space."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sizewise.errors import DataError

_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")


def as_text(value: Any) -> str:
    """Text of a cell; None and NaN are empty, lists are joined by a space."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, (list, tuple)):
        return " ".join(as_text(item) for item in value)
    return str(value)


def tidy(text: str) -> str:
    """Collapse runs of white space, keeping line breaks and at most one empty line."""
    lines = [
        re.sub(r"[^\S\n]+", " ", line).strip() for line in text.replace("\r", "\n").split("\n")
    ]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def all_columns(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names that occur in any row, in order of appearance."""
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row))
    return list(names)


def resolve_column(name: str, columns: Sequence[str], key: str) -> str:
    """Find ``name`` among ``columns``: exact, else the only one equal but for outer white space.

    Args:
        name: the configured name.
        columns: the names that exist.
        key: the configuration key, for the message.

    Raises:
        DataError: no such column; the message names those that exist and the closest one.
    """
    if name in columns:
        return name
    alike = [column for column in columns if column.strip() == name.strip()]
    if len(alike) == 1:
        return alike[0]
    folded = {column.strip().lower(): column for column in columns}
    close = difflib.get_close_matches(name.strip().lower(), list(folded), n=1, cutoff=0.5)
    hint = f" Did you mean {folded[close[0]]!r}?" if close else ""
    raise DataError(
        f"{key} names the column {name!r}, which the data does not have.{hint} "
        f"Columns: {', '.join(repr(column) for column in columns) or 'none'}."
    )


def placeholders(text: str) -> list[str]:
    """Return the names between braces in ``text``, each once, in order."""
    return list(dict.fromkeys(match[1] for match in _FIELD.finditer(text) if match[1]))


class TextTemplate:
    """A text with ``{column}`` placeholders.

    A paragraph (separated by an empty line) that has placeholders of which all are empty is left
    out. ``{{`` and ``}}`` stand for braces.
    """

    def __init__(self, text: str, columns: Sequence[str], key: str) -> None:
        self._paragraphs = re.split(r"\n[^\S\n]*\n", text)
        names = [m[1] for m in _FIELD.finditer(text) if m[1]]
        self._resolved = {name: resolve_column(name, columns, key) for name in names}

    @property
    def columns(self) -> list[str]:
        """Columns of the data that the template uses, in order."""
        return list(dict.fromkeys(self._resolved.values()))

    def render(self, row: Mapping[str, Any], clean: bool = False) -> str:
        """Fill the placeholders from ``row``; ``clean`` tidies each value's white space."""
        filled = (self._paragraph(paragraph, row, clean) for paragraph in self._paragraphs)
        text = "\n\n".join(paragraph for paragraph in filled if paragraph is not None)
        return text if text.strip() else ""

    def values(self, row: Mapping[str, Any]) -> str:
        """Return what the columns hold and no word between, in the order of their names."""
        texts = (as_text(row.get(name)) for name in sorted(self.columns, key=str.strip))
        return " | ".join(text for text in texts if text.strip())

    def _paragraph(self, paragraph: str, row: Mapping[str, Any], clean: bool) -> str | None:
        values: list[str] = []

        def fill(match: re.Match[str]) -> str:
            if match[1] is None:
                return match[0][0]
            value = as_text(row.get(self._resolved[match[1]]))
            values.append(tidy(value) if clean else value)
            return values[-1]

        text = _FIELD.sub(fill, paragraph)
        return None if values and not any(value.strip() for value in values) else text
