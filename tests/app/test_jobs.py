"""The page of a running sweep."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from sizewise.app.pages import common
from sizewise.app.pages.jobs import called, loss_curves, sweeps
from sizewise.files import write_json
from sizewise.record.claims import try_claim
from sizewise.record.progress import Stand
from sizewise.sweep.board import Board, Memory, read_board

SCRIPT = "from sizewise.app.pages.jobs import page\npage()\n"


def run_dir(sweep: Path, name: str, losses: list[float]) -> Path:
    folder = sweep / name
    write_json(folder / "job.json", {})
    lines = [
        json.dumps({"step": 10 * i, "time": 1.0, "values": {"train_loss": loss, "lr": 0.1}})
        for i, loss in enumerate(losses, start=1)
    ]
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder


@pytest.fixture
def running(tmp_path: Path) -> Path:
    sweep = tmp_path / "multirun" / "mine-1"
    for number in range(2):
        run_dir(sweep, f"micro_{number}", [2.0, 1.0] if number else [])
    write_json(sweep / "sweep.json", {"jobs": ["micro_0", "micro_1"]})
    return sweep


def test_the_page_shows_the_board_of_a_running_sweep_and_its_loss_curves(
    running: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = try_claim(running / "micro_1")
    assert claim is not None
    began = claim.owner.at or 0.0
    stand = Stand("training", "", 20, 120, 0, began, began + 10)
    write_json(running / "micro_1" / "progress.json", vars(stand))
    monkeypatch.setattr(sys, "argv", ["main.py", str(running.parent)])
    common.arguments.clear()
    page = AppTest.from_string(SCRIPT, default_timeout=60).run()
    claim.release("done")
    common.arguments.clear()
    assert not page.exception
    assert "0 of 2 jobs ended" in page.markdown[0].value.replace("\\", "")
    (table,) = page.dataframe
    assert table.value.loc["micro_1", "done"] == "20/120"
    assert table.value.loc["micro_1", "train loss"] == "1"
    assert [head.value for head in page.subheader] == ["Training loss", "Learning rate"]


def test_curves_of_what_runs_come_first_and_empty_ones_are_left_out(running: Path) -> None:
    run_dir(running, "nano_9", [3.0])
    claim = try_claim(running / "nano_9")
    assert claim is not None
    curves = loss_curves(running, read_board(running))
    claim.release("done")
    assert [curve.label for curve in curves] == ["nano_9", "micro_1"]


def test_a_curve_is_called_by_its_model_and_what_the_sweep_varies(tmp_path: Path) -> None:
    folder = run_dir(tmp_path, "nano_icd10-dialogues_lora-r4_s1_a1716ea4d86b", [3.0])
    assert called(folder) == folder.name
    config = {"model": {"name": "nano"}, "lora": {"r": 4}, "optimizer": {"lr": 0.001698}, "seed": 1}
    write_json(folder / "job.json", {"config": config})
    assert called(folder) == "nano r=4 lr=0.0017 seed=1"


def test_sweeps_are_found_below_a_directory_and_a_run_is_one_itself(
    running: Path, tmp_path: Path
) -> None:
    assert sweeps(running.parent) == sweeps(running) == [running]
    assert sweeps(running / "micro_0") == [running / "micro_0"]
    (tmp_path / "empty").mkdir()
    assert sweeps(tmp_path / "empty") == []


def test_a_visitor_looks_up_once_what_is_done(
    running: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[object] = []

    def looked(directory: Path, **more: object) -> Board:
        given.append(more.get("memory"))
        return read_board(directory)

    monkeypatch.setattr("sizewise.app.pages.jobs.read_board", looked)
    monkeypatch.setattr(sys, "argv", ["main.py", str(running.parent)])
    common.arguments.clear()
    AppTest.from_string(SCRIPT, default_timeout=60).run().run()
    common.arguments.clear()
    first, second = given
    assert first is second
    assert isinstance(first, Memory)
