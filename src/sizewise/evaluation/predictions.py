"""Predictions on disk: one JSON line each, written as they are made."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sizewise.atomic import write_atomically
from sizewise.errors import EvaluationError
from sizewise.evaluation.prediction import Prediction


class PredictionStore:
    """An append-only file of predictions that survives ``kill -9`` at any moment.

    Every batch is flushed to the disk before the next one starts; a torn last line is dropped.
    A side-car (``<name>.key``) says what the predictions belong to.

    Args:
        path: the file of predictions.
        key: hash of everything the predictions depend on (model, data, decoding, …).

    Raises:
        EvaluationError: the file holds predictions under another key, or under none.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.key = key
        self._key_path = path.with_name(f"{path.name}.key")
        self._torn = path.exists()
        self._check_owner()

    def read(self) -> list[Prediction]:
        """Return all whole predictions, in the order in which they were written."""
        return read_predictions(self.path) if self.path.exists() else []

    def append(self, predictions: Iterable[Prediction]) -> None:
        """Write predictions after the last whole line and wait until they are on the disk."""
        self._claim()
        lines = "".join(_line(prediction) for prediction in predictions)
        if self._torn:
            os.truncate(self.path, whole_bytes(self.path))
            self._torn = False
        with self.path.open("ab") as handle:
            handle.write(lines.encode())
            handle.flush()
            os.fsync(handle.fileno())

    def finish(self, predictions: Iterable[Prediction]) -> None:
        """Replace the file at once by the final predictions with their scores."""
        self._claim()
        write_atomically(self.path, "".join(_line(prediction) for prediction in predictions))

    def _check_owner(self) -> None:
        if not self.path.exists():
            return
        owner = self._owner()
        if owner != self.key:
            raise EvaluationError(
                f"{self.path} holds predictions of something else (key {owner}, here {self.key}). "
                "Write to another directory, or remove that file to start again."
            )

    def _owner(self) -> str | None:
        if not self._key_path.exists():
            return None
        return self._key_path.read_text(encoding="utf-8").strip()

    def _claim(self) -> None:
        """The key is on the disk before the first prediction, never the other way round."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._owner() != self.key:
            write_atomically(self._key_path, f"{self.key}\n")


def read_predictions(path: Path) -> list[Prediction]:
    """Read a file of predictions; a last line without its newline is dropped.

    Raises:
        EvaluationError: a line before the last one is damaged.
    """
    whole = path.read_bytes()[: whole_bytes(path)].decode()
    return [_parse(line, path, i) for i, line in enumerate(whole.splitlines(), start=1)]


def whole_bytes(path: Path) -> int:
    """Return the length in bytes up to and including the last newline."""
    return path.read_bytes().rfind(b"\n") + 1


def _line(prediction: Prediction) -> str:
    return json.dumps(prediction.to_json(), ensure_ascii=True) + "\n"


def _parse(line: str, path: Path, number: int) -> Prediction:
    try:
        record: dict[str, Any] = json.loads(line)
        return Prediction.from_json(record)
    except (json.JSONDecodeError, TypeError) as error:
        raise EvaluationError(
            f"{path}, line {number}, is no prediction of this version ({error}). "
            "Remove the file and evaluate again."
        ) from error
