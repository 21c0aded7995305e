"""Learning rates that were tried and stopped: told by every report, and no arm of it."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from tests.report.factory import Spec, Task, make_sweep

from sizewise.files import sealed, write_json
from sizewise.record.brackets import (
    BracketRecord,
    Candidate,
    RungRecord,
    TuningRecord,
    read_tuning,
    write_tuning,
)
from sizewise.record.directories import SweepDir
from sizewise.report.comparison.compare import Comparison, compare
from sizewise.report.comparison.selection import one_per_question
from sizewise.report.page.page import render_page
from sizewise.report.page.results import results_text
from sizewise.report.page.tables import stopped_table
from sizewise.report.page.terminal import show
from sizewise.report.wandb import sweep_summary

SMALL = Task(examples=40)
KEPT = [Spec(seed=seed, lr=1e-3, task=SMALL) for seed in (1, 2, 3)]
AUDITED = Spec(seed=1, lr=3e-3, tuned=0.9, task=SMALL)


@pytest.fixture
def tuned(tmp_path: Path) -> Path:
    """A sweep that kept one rate, audited a second, and stopped a third and one that diverged."""
    make_sweep(tmp_path, [*KEPT, AUDITED, Spec(model="mini", tuned=None, task=SMALL)])
    candidates = [
        Candidate(KEPT[0].name, 1e-3, "kept", 0.9, 50, 150, 10.0, 5000, final=0.5),
        Candidate(AUDITED.name, 3e-3, "audited", 0.95, 50, 150, 11.0, 5000, final=0.4),
        Candidate("gone", 3e-4, "stopped", 1.2345, 50, 150, 12.0, 5000),
        Candidate("burst", 1.0, "diverged", None, 7, 150, 1.0, 100),
    ]
    write_tuning(tmp_path, TuningRecord([bracket(candidates)], audit=0.5))
    return tmp_path


def bracket(candidates: list[Candidate]) -> BracketRecord:
    """One configuration, of which the best rate was kept at a third of the steps."""
    named = [replace(c, cell="model=nano", values=[c.value]) for c in candidates]
    return BracketRecord("model=nano", [RungRecord(1 / 3, 0, ["configuration"])], named, "cosine")


def test_what_was_not_kept_is_no_arm_also_where_it_was_run_to_its_end(tuned: Path) -> None:
    """Its one seed would otherwise stand for the configuration, which has three."""
    comparison = compare([tuned])
    assert len(comparison.runs) == 4
    (chosen,) = one_per_question(comparison.sets[0].test)
    assert chosen.seeds == (1, 2, 3)
    SweepDir(tuned).tuning.unlink()
    assert len(compare([tuned]).runs) == 5


def test_every_form_of_the_report_tells_what_was_stopped_and_what_it_cost(tuned: Path) -> None:
    comparison = compare([tuned])
    for text in (render_page(comparison), terminal(comparison)):
        assert "Stopped at a rung" in text
        assert "1.2345" in text
        assert "50 of 150" in text
        assert "model=nano (diverged)" in text
        assert "1 configuration × 4 learning rates" in text
        assert "kept in 0 of 1 bracket, mean regret 25.00% of the validation loss" in text
    (record,) = json.loads(results_text(comparison))["tuning"]
    states = [candidate["state"] for candidate in record["brackets"][0]["candidates"]]
    assert states == ["kept", "audited", "stopped", "diverged"]


def test_wandb_gets_the_table_of_what_was_stopped(tuned: Path) -> None:
    summary = sweep_summary(compare([tuned]), {"picture": tuned / "none.png"})
    columns, rows = summary.tables["stopped"]
    assert list(columns[:4]) == ["Stopped", "Learning rate", "At step", "Validation loss"]
    assert ["model=nano", "0.0003", "50 of 150", "1.2345"] in [row[:4] for row in rows]
    assert "mean regret 25.00%" in summary.values["tuning"]


def test_a_record_of_configurations_with_one_rung_is_still_read(tmp_path: Path) -> None:
    """As it was written before there were brackets."""
    kept = {"run": "a", "lr": 1e-3, "state": "kept", "value": 0.9, "step": 50, "of_steps": 150}
    gone = kept | {"run": "b", "lr": 3e-3, "state": "stopped", "value": 0.95, "final": None}
    cell = {"name": "r=4", "share": 2 / 3, "candidates": [kept, gone]}
    write_json(SweepDir(tmp_path).tuning, sealed({"cells": [cell], "audit": 0.0}))
    record = read_tuning(tmp_path)
    assert record is not None
    (found,), ((_, stopped),) = record.cells, record.stopped
    assert (found.name, found.kept and found.kept.lr) == ("r=4", 1e-3)
    assert (stopped.run, stopped.values) == ("b", [0.95])


def test_what_a_bracket_stopped_stands_beside_the_best_that_it_kept(tmp_path: Path) -> None:
    """At the same rung, named by its configuration where that is another one."""
    make_sweep(tmp_path, KEPT)
    candidates = [
        Candidate(KEPT[0].name, 1e-3, "kept", 0.5, 100, 150, cell="r=8", values=[0.9, 0.5]),
        Candidate("gone", 3e-3, "stopped", 0.95, 50, 150, cell="r=4", values=[0.95]),
    ]
    rungs = [RungRecord(1 / 3, 1), RungRecord(2 / 3, 1)]
    write_tuning(tmp_path, TuningRecord([BracketRecord("nano", rungs, candidates)]))
    (row,) = stopped_table(compare([tmp_path]).tuning).rows
    assert [cell.text for cell in row[:6]] == [
        "r=4", "0.003", "50 of 150", "0.9500", "0.9000", "r=8, 0.001",
    ]  # fmt: skip
    assert "2 configurations with one seed each" in terminal(compare([tmp_path]))


def test_the_best_that_was_kept_is_looked_up_once_a_bracket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = Candidate("kept", 1e-3, "kept", 0.5)
    gone = [Candidate(f"gone{n}", 3e-3, "stopped", 0.9) for n in range(50)]
    looks: list[str] = []
    real = BracketRecord.kept.fget
    assert real is not None
    counted = property(lambda record: looks.append(record.name) or real(record))
    monkeypatch.setattr(BracketRecord, "kept", counted)
    record = TuningRecord([bracket([kept, *gone])])
    assert len(stopped_table([record]).rows) == 50
    assert len(looks) < 10


def test_without_tuning_nothing_is_said(tmp_path: Path) -> None:
    make_sweep(tmp_path, KEPT)
    comparison = compare([tmp_path])
    assert "rung" not in terminal(comparison)
    assert "Stopped at a rung" not in render_page(comparison)
    assert json.loads(results_text(comparison))["tuning"] == []


def test_a_damaged_record_hides_nothing(tuned: Path) -> None:
    path = SweepDir(tuned).tuning
    path.write_text(path.read_text().replace("0.95", "0.15"))
    assert read_tuning(tuned) is None
    assert len(compare([tuned]).runs) == 5


def terminal(comparison: Comparison) -> str:
    text = StringIO()
    show(comparison, console=Console(width=160, file=text))
    return " ".join(text.getvalue().split())


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ((1e-3, 3e-3, 9e-3), "was the lowest that was tried, so a lower one"),
        ((1e-3, 3e-4, 1e-4), "was the highest that was tried, so a higher one"),
        ((1e-3, 3e-4, 3e-3), ""),
        ((1e-3,), ""),
    ],
)
def test_a_best_rate_at_the_edge_of_those_tried_is_objected_to(
    tmp_path: Path, rates: tuple[float, ...], said: str
) -> None:
    make_sweep(tmp_path, [*KEPT, Spec(model="mini", tuned=None, task=SMALL)])
    others = [Candidate(f"gone{lr}", lr, "stopped", 2.0, 50, 150) for lr in rates[1:]]
    kept = Candidate(KEPT[0].name, rates[0], "kept", 0.9, 50, 150)
    write_tuning(tmp_path, TuningRecord([bracket([kept, *others])]))
    (made,) = compare([tmp_path]).sets
    found = [text for text in made.warnings if "that was tried, so a" in text]
    assert len(found) == bool(said)
    assert all(said in text for text in found)
