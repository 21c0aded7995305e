from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sizewise.devices import PeakMemory
from sizewise.errors import EvaluationError
from sizewise.record.predictions import Bill, Prediction, PredictionStore, read_predictions


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


def half_of(line: str) -> str:
    return line[: len(line) // 2]


def another_answer(line: str) -> str:
    assert "yes" in line
    return line.replace("yes", "no")


@pytest.mark.parametrize("damage", [half_of, another_answer, lambda line: "[]"])
def test_a_damaged_line_of_a_half_finished_file_is_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[str], str]
) -> None:
    store = PredictionStore(tmp_path / "test.jsonl", "key")
    store.append([prediction("a"), prediction("b"), prediction("c")])
    lines = store.path.read_text().splitlines()
    store.path.write_text(f"{lines[0]}\n{damage(lines[1])}\n{lines[2]}\n")
    with pytest.raises(EvaluationError, match="line 2"):
        read_predictions(store.path)
    again = PredictionStore(store.path, "key")
    assert again.read() == [prediction("a"), prediction("c")]
    assert [r.message for r in caplog.records] == [
        f"{store.path}: 1 damaged predictions are made again."
    ]
    again.append([prediction("b")])
    assert [p.id for p in read_predictions(store.path)] == ["a", "c", "b"]


def test_an_answer_that_was_edited_after_the_last_one_is_made_again(tmp_path: Path) -> None:
    store = PredictionStore(tmp_path / "test.jsonl", "key")
    store.append([prediction("a"), prediction("b")])
    store.finish([prediction("a"), prediction("b")])
    assert "sha256" not in store.path.read_text(), "the format of finished files is another"
    store.path.write_text(store.path.read_text().replace("yes", "no", 1))
    assert PredictionStore(store.path, "key").read() == []


def test_a_half_finished_file_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    store = PredictionStore(tmp_path / "test.jsonl", "key")
    store.append([])
    store.path.write_text(json.dumps(prediction("a").to_json()) + "\n")
    assert PredictionStore(store.path, "key").read() == [prediction("a")]


@pytest.mark.parametrize("damage", ["", "x", "[1, 9.0, 5]\n[", '[1, 9.0, 5, "0"]\n', "{}\n"])
def test_a_damaged_bill_is_an_unknown_cost_and_no_error(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "test.jsonl"
    bill = Bill(path, 0, PeakMemory(torch.device("cpu")))
    bill.note(1)
    side_car = tmp_path / "test.jsonl.spent"
    assert Bill(path, 1, PeakMemory(torch.device("cpu"))).seconds == bill.seconds
    side_car.write_text(side_car.read_text().replace("[1, ", "[1, 1") if damage == "x" else damage)
    found = Bill(path, 1, PeakMemory(torch.device("cpu"))).seconds
    assert found == (9.0 if damage.startswith("[1, 9.0, 5]") else None)


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
