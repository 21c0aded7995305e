"""Columns of a row as text: names that tolerate spaces, templates, white space."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sizewise.errors import DataError

_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")
_WHOLE = re.compile(r"-?\d+\.0")
_SCALARS = (date, time, timedelta, Decimal, UUID)
TEXT_PARTS = ("text", "input_text", "output_text")
_PART_KEYS = {"type", "text", "cache_control", "annotations", "citations", "logprobs"}


def as_text(value: Any, column: str = "", structured: bool = False) -> str:
    """Text of a cell: what is missing is empty, text parts are joined, the rest is JSON or text.

    ``structured``: write lists as JSON, as answers need it; else a list of plain values is joined
    by a space, and only what holds mappings or lists is JSON.

    Raises:
        DataError: the cell holds bytes, an object that is no text, or half a surrogate pair.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, (list, tuple, Mapping)):
        parts = text_parts(value)
        if parts is None and not structured and not _nested(value):
            parts = " ".join(as_text(item, column) for item in value)
        text = json.dumps(_plain(value, column), ensure_ascii=False) if parts is None else parts
    else:
        text = str(_plain(value, column))
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{_where(column)} holds text that is not valid Unicode ({error.reason}): "
            f"{text[:60]!a}. Correct the cell, or write the file as UTF-8 again."
        ) from error
    return text


def text_parts(value: Any) -> str | None:
    """Join the text of parts such as ``{"type": "text", "text": "…"}``; None for anything else.

    A mapping that says more (a place, a label) is no such part: its keys would be lost.
    """
    parts = [value] if isinstance(value, Mapping) else value
    texts = [part["text"] for part in parts if isinstance(part, Mapping) and _is_text_part(part)]
    whole = bool(texts) and len(texts) == len(parts)
    return "".join(texts) if whole and all(isinstance(text, str) for text in texts) else None


def _is_text_part(part: Mapping[str, Any]) -> bool:
    """Whether a mapping is a text and nothing else; tables fill absent keys with null."""
    said = {key for key, value in part.items() if value is not None}
    return part.get("type") in TEXT_PARTS and "text" in said and said <= _PART_KEYS


def _nested(value: Any) -> bool:
    return isinstance(value, Mapping) or any(
        isinstance(item, (list, tuple, Mapping)) for item in value
    )


def _plain(value: Any, column: str) -> Any:
    """Return a value as JSON knows it: missing numbers are null, dates and the like are text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item, column) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, column) for item in value]
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, _SCALARS):
        return str(value)
    raise DataError(
        f"{_where(column)} holds {type(value).__name__}, which is no text. Decode it to text "
        "first, or name another column."
    )


def _where(column: str) -> str:
    return f"A cell of the column {column!r}" if column else "A cell"


def as_integer(cell: Any) -> Any:
    """Return a whole number such as 1.0 as 1; anything else as it is."""
    if isinstance(cell, float) and cell.is_integer():
        return int(cell)
    whole = isinstance(cell, str) and _WHOLE.fullmatch(cell)
    return cell.removesuffix(".0") if whole else cell


def tidy(text: str) -> str:
    """Collapse runs of white space, keeping line breaks and at most one empty line."""
    lines = [
        re.sub(r"[^\S\n]+", " ", line).strip() for line in text.replace("\r", "\n").split("\n")
    ]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def with_fields(row: dict[str, Any]) -> dict[str, Any]:
    """Give the fields of objects names of their own: ``answer.text`` beside ``answer``.

    Fields of fields as well; a column that is called so wins.
    """
    objects = [(name, cell) for name, cell in row.items() if isinstance(cell, Mapping)]
    if not objects:
        return row
    named = dict(row)
    for name, cell in objects:
        fields = {f"{name}.{field}": value for field, value in cell.items()}
        for field, value in with_fields(fields).items():
            named.setdefault(field, value)
    return named


def all_columns(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names that occur in any row, in order of appearance."""
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row))
    return list(names)


def resolve_column(name: str, columns: Sequence[str], key: str) -> str:
    """Find ``name`` among ``columns``: exact, else the only one equal but for outer white space.

    Raises:
        DataError: no such column; the message names ``key``, those that exist and the closest one.
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
    out. ``{{`` and ``}}`` stand for braces. ``structured``: lists are written as JSON.
    """

    def __init__(
        self, text: str, columns: Sequence[str], key: str, structured: bool = False
    ) -> None:
        self._text, self._structured = text, structured
        self._paragraphs = re.split(r"\n[^\S\n]*\n", text)
        names = [m[1] for m in _FIELD.finditer(text) if m[1]]
        self._resolved = {name: resolve_column(name, columns, key) for name in names}

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(self._resolved.values()))

    @property
    def sole(self) -> str | None:
        """The column that the template consists of and nothing else, if there is one."""
        match = _FIELD.fullmatch(self._text.strip())
        return self._resolved[match[1]] if match and match[1] else None

    def render(self, row: Mapping[str, Any], clean: bool = False) -> str:
        """Fill the placeholders from ``row``; ``clean`` tidies each value's white space."""
        filled = (self._paragraph(paragraph, row, clean) for paragraph in self._paragraphs)
        text = "\n\n".join(paragraph for paragraph in filled if paragraph is not None)
        return text if text.strip() else ""

    def values(self, row: Mapping[str, Any]) -> str:
        """Return what the columns hold and no word between, in the order of their names."""
        names = sorted(self.columns, key=str.strip)
        texts = (as_text(row.get(name), name, self._structured) for name in names)
        return " | ".join(text for text in texts if text.strip())

    def _paragraph(self, paragraph: str, row: Mapping[str, Any], clean: bool) -> str | None:
        values: list[str] = []

        def fill(match: re.Match[str]) -> str:
            if match[1] is None:
                return match[0][0]
            name = self._resolved[match[1]]
            value = as_text(row.get(name), name, self._structured)
            values.append(tidy(value) if clean else value)
            return values[-1]

        text = _FIELD.sub(fill, paragraph)
        return None if values and not any(value.strip() for value in values) else text
