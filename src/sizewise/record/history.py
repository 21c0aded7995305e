"""The run's own history, ``metrics.jsonl``: one line per logged set of values.

A line is ``{"step": 20, "time": 1790000000.0, "values": {"train/loss": 1.2}}``; ``step`` counts
optimiser steps and is null for values that belong to no step. The number of a line is the
history's own clock: an interrupted run that goes on ends with the lines of an undisturbed one.
A line carries its hash (``sha256``); one that does not fit it is left out.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sizewise.files import (
    parse_json,
    sealed,
    unsealed,
    whole_lines,
    whole_part,
    write_atomically,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Line:
    """Values that were logged together; ``time`` in seconds since the epoch."""

    step: int | None
    time: float
    values: Mapping[str, float]

    def to_text(self) -> str:
        """Return the line as JSON with its hash and its newline."""
        record = {"step": self.step, "time": self.time, "values": dict(self.values)}
        return json.dumps(sealed(record), ensure_ascii=False) + "\n"


def read_history(path: Path) -> list[Line]:
    """Read all whole lines; a torn last line (the writer was killed) is left out.

    Damaged lines before it are left out as well, which is said.
    """
    if not path.is_file():
        return []
    text = path.read_bytes()
    lines = parse_lines(text)
    if (lost := text.count(b"\n") - len(lines)) > 0:
        log.warning("%s: %d damaged lines are left out.", path, lost)
    return lines


def parse_lines(text: bytes) -> list[Line]:
    return [line for raw in whole_lines(text) if (line := _line(raw)) is not None]


def _line(raw: bytes) -> Line | None:
    try:
        record = unsealed(parse_json(raw))
        return Line(record["step"], record["time"], dict(record["values"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def before_step(lines: list[Line], step: int) -> list[Line]:
    """Return the lines up to the first one at or after ``step``."""
    for number, line in enumerate(lines):
        if line.step is not None and line.step >= step:
            return lines[:number]
    return lines


def rewrite(path: Path, lines: list[Line]) -> None:
    write_atomically(path, "".join(line.to_text() for line in lines))


class HistoryReader:
    """Reads what was appended to a history since the last call.

    Attributes:
        number: number of the next line to return; set it to skip lines that are known already.
        last_step: optimiser step of the last line that had one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0
        self.last_step = 0
        self._offset = 0
        self._passed = 0

    def new_lines(self) -> list[tuple[int, Line]]:
        """Return (line number, line) of every line not returned before."""
        if not self.path.is_file():
            return []
        with self.path.open("rb") as handle:
            handle.seek(self._offset)
            data = handle.read()
        whole = whole_part(data)
        numbered = list(enumerate(parse_lines(whole), start=self._passed))
        self._offset += len(whole)
        self._passed += len(numbered)
        steps = [line.step for _, line in numbered if line.step is not None]
        self.last_step = steps[-1] if steps else self.last_step
        fresh = [(number, line) for number, line in numbered if number >= self.number]
        self.number = max(self.number, self._passed)
        return fresh
