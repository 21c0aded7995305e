"""Jobs on the user's own splits: no test split beside further test sets, and rows that are long."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from sizewise.composition.compose import compose_run
from sizewise.errors import DataError
from sizewise.job import bases
from sizewise.job.run import run_job
from sizewise.record.outcome import Outcome
from sizewise.verify import FAILED
from sizewise.verify.verify import verify_run

SMALL = (
    "model=nano", "lora.r=4", "logger=none", "callbacks=none", "trainer.max_steps=2",
    "trainer.progress_bar=false", "generation.max_new_tokens=8", "dataset=csv",
    'dataset.prompt="{q}"', 'dataset.answer="{a}"',
)  # fmt: skip


def write(path: Path, *questions: str) -> str:
    path.write_text("\n".join(["q,a", *(f"{text},answer" for text in questions)]) + "\n")
    return str(path)


def numbers(count: int) -> str:
    return " ".join(map(str, range(count)))


def run(folder: Path, *overrides: str) -> Outcome:
    own = write(folder / "own.csv", *(f"question {i}" for i in range(20)))
    words = [*SMALL, f"dataset.source.path={own}", f"paths.cache={folder}", *overrides]
    return run_job(compose_run(words), folder / "run")


def other(folder: Path) -> list[str]:
    path = write(folder / "other.csv", *(f"other {i}" for i in range(6)), numbers(900))
    prefix = "eval_dataset.csv"
    return [
        "eval_dataset=[csv]", f"{prefix}.source.path={{test: {path}}}", f"{prefix}.name=other",
        prefix + '.prompt="{q}"', prefix + '.answer="{a}"', f"{prefix}.max_length=4000",
    ]  # fmt: skip


def test_point_19_a_run_without_a_test_split_of_its_own_is_scored_on_further_ones(
    tmp_path: Path,
) -> None:
    outcome = run(tmp_path, "dataset.split.test=0", *other(tmp_path))
    assert outcome.data.sizes == {"train": 18, "validation": 2, "test": 0}
    assert set(outcome.base) == set(outcome.tuned or {}) == {"other"}
    assert outcome.base["other"].examples == 6
    assert outcome.data.report["further"]["other"]["dropped"] == {"test/answer_cut": 1}
    found = verify_run(tmp_path / "run")
    assert found.ok, [check for check in found.checks if check.status == FAILED]


def test_point_19_a_baseline_without_a_test_split_of_its_own_is_scored_too(tmp_path: Path) -> None:
    own = ("model=majority", "lora=none", "dataset.split.test=0")
    metric = ("metric=[label,efficiency]", "dataset.primary=label/exact_match")
    direction = ("dataset.direction=max", "eval_dataset.csv.primary=label/exact_match")
    outcome = run(tmp_path, *own, *metric, *direction, *other(tmp_path))
    assert set(outcome.base) == {"other"}


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_base(*args: Any) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(bases, "load_base", load_base)
    monkeypatch.setattr(bases, "loaded_bases", {})


@pytest.mark.usefixtures("unloaded")
def test_point_19_a_run_with_nothing_to_test_is_refused_before_weights(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"my_csv has no test examples to answer"):
        run(tmp_path, "dataset.split.test=0")


@pytest.mark.usefixtures("unloaded")
def test_behaviour_51_one_long_row_is_left_out_and_stops_no_job(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "long.csv", *(f"question {i}" for i in range(9)), numbers(200))
    files = write(tmp_path / "train.csv", *(f"exercise {i}" for i in range(9)))
    caplog.set_level(logging.INFO)
    with pytest.raises(AssertionError, match="weights were loaded"):
        run(
            tmp_path,
            f"dataset.source.path={{train: {files}, test: {path}}}",
            "dataset.max_length=2000",
            "generation.max_new_tokens=600",
        )
    assert "no_room_to_answer" in caplog.text


@pytest.mark.usefixtures("unloaded")
def test_point_2_what_was_left_out_and_noted_is_said_before_weights(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = ["q,a,s", *(f"q{i},a,{'dev' if i % 3 else 'train'}" for i in range(30)), "q,,train"]
    path = tmp_path / "split.csv"
    path.write_text("\n".join([*rows, "z,a,test"]) + "\n")
    caplog.set_level(logging.INFO)
    with pytest.raises(AssertionError, match="weights were loaded"):
        run(tmp_path, f"dataset.source.path={path}", "dataset.split.column=s")
    assert "my_csv: left out of 32 rows: 1 empty answer; 0 duplicates." in caplog.text
    assert "examples of the split 'dev' read as validation (20)" in caplog.text
