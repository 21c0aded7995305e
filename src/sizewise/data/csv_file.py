"""Rows of a CSV file, or one sentence about what is wrong with it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sizewise.config.data import SourceConfig
from sizewise.errors import DataError

Row = dict[str, Any]
_FIELD_LIMIT = 2**31 - 1


def read_csv(path: Path, source: SourceConfig) -> list[Row]:
    """Read a file of UTF-8 text with a header, one mapping of texts per row.

    Raises:
        DataError: a row or the header does not fit; the message names the line.
    """
    csv.field_size_limit(_FIELD_LIMIT)
    with path.open(encoding="utf-8-sig", newline="") as handle:
        delimiter = source.delimiter.replace("\\t", "\t")  # as it is typed on a command line
        reader = csv.DictReader(handle, delimiter=delimiter, strict=True)
        rows: list[Row] = []
        try:
            _check_header(path, reader.fieldnames or [], source.delimiter)
            for row in reader:
                if None in row or None in row.values():
                    raise DataError(
                        f"{path}, line {reader.line_num}: the row does not have "
                        f"{len(reader.fieldnames or [])} fields like the header. Check the quotes "
                        f"and dataset.source.delimiter={source.delimiter!r}."
                    )
                rows.append(dict(row))
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}.") from error
    return rows


def _check_header(path: Path, columns: Sequence[str], delimiter: str) -> None:
    """Refuse a header that another sign separates, and one that names a column twice."""
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path} has more than one column {twice!r}. Give each a name of its own.")
    signs = [sign for sign in ";\t|," if len(columns) == 1 and sign in columns[0]]
    if signs:
        sign = signs[0].replace("\t", "\\t")
        raise DataError(
            f"{path} has one column, {columns[0]!r}. If its columns are separated otherwise, set "
            f"'dataset.source.delimiter=\"{sign}\"' (now {delimiter!r})."
        )
