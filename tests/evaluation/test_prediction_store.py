from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sizewise.errors import EvaluationError
from sizewise.record.predictions import Prediction, PredictionStore, read_predictions


def prediction(name: str, text: str = "E11.9\u2028\nyes") -> Prediction:
    return Prediction(name, "g", "p", "r", text, -1.5, 3, 4, 5, 6, True, 0.25, 2)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    store = PredictionStore(tmp_path / "a" / "test.jsonl", "key")
    assert store.read() == []
    store.append([prediction("a"), prediction("b")])
    store.append([prediction("c")])
    again = PredictionStore(store.path, "key")
    assert [p.id for p in again.read()] == ["a", "b", "c"]
    assert again.read()[0] == prediction("a")


def test_a_torn_last_line_is_dropped_and_written_over(tmp_path: Path) -> None:
    store = PredictionStore(tmp_path / "test.jsonl", "key")
    store.append([prediction("a"), prediction("b")])
    whole = store.path.read_bytes()
    store.path.write_bytes(whole[:-20])
    again = PredictionStore(store.path, "key")
    assert [p.id for p in again.read()] == ["a"]
    again.append([prediction("b"), prediction("c")])
    assert [p.id for p in read_predictions(store.path)] == ["a", "b", "c"]


def test_a_damaged_line_in_the_middle_is_an_error(tmp_path: Path) -> None:
    store = PredictionStore(tmp_path / "test.jsonl", "key")
    store.append([prediction("a"), prediction("b")])
    lines = store.path.read_text().splitlines()
    store.path.write_text(f"{lines[0][:10]}\n{lines[1]}\n")
    with pytest.raises(EvaluationError, match="line 1"):
        store.read()


def test_predictions_of_something_else_are_refused(tmp_path: Path) -> None:
    PredictionStore(tmp_path / "test.jsonl", "one").append([prediction("a")])
    with pytest.raises(EvaluationError, match="one, here two"):
        PredictionStore(tmp_path / "test.jsonl", "two")
    (tmp_path / "test.jsonl.key").unlink()
    with pytest.raises(EvaluationError, match="key None"):
        PredictionStore(tmp_path / "test.jsonl", "one")


def test_finish_replaces_the_file(tmp_path: Path) -> None:
    store = PredictionStore(tmp_path / "test.jsonl", "key")
    store.append([prediction("b"), prediction("a")])
    store.finish([prediction("a", "new")])
    assert [p.text for p in PredictionStore(store.path, "key").read()] == ["new"]


KILLED = """
import os, sys
from pathlib import Path
from sizewise.record.predictions import Prediction
from sizewise.record.predictions import PredictionStore
store = PredictionStore(Path(sys.argv[1]), "key")
for i in range(5):
    store.append([Prediction(f"{i}{j}", "g", "p", "r", "t", -1.0, 1, 1, 1, 1, True, 0.1, 2)
                  for j in range(2)])
with store.path.open("ab") as handle:
    handle.write(b'{"id": "half of a li')
    handle.flush()
    os.kill(os.getpid(), 9)
"""


def test_a_killed_process_loses_only_the_batch_under_way(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    process = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert process.returncode == -9
    assert [p.id for p in PredictionStore(path, "key").read()] == [
        f"{i}{j}" for i in range(5) for j in range(2)
    ]
