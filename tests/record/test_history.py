from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
from tests.tracking.tracking_helpers import fit

from sizewise.config.evaluation import LoggerConfig
from sizewise.record.directories import RunDir
from sizewise.record.history import HistoryReader, Line, read_history, rewrite
from sizewise.tracking import make_loggers
from sizewise.tracking.metrics_file import MetricsFile


def lines(run_dir: Path) -> list[tuple[int | None, dict[str, float]]]:
    return [(line.step, dict(line.values)) for line in read_history(RunDir(run_dir).history)]


def test_import_of_tracking_needs_neither_torch_nor_wandb() -> None:
    code = "import sys, sizewise.tracking; print({'torch', 'wandb'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = RunDir(tmp_path).history
    rewrite(path, [Line(1, 0.0, {"a": 1.0}), Line(2, 0.0, {"a": 2.0})])
    path.write_text(path.read_text() + '{"step": 3, "ti')
    assert [line.step for line in read_history(path)] == [1, 2]


def test_lines_after_a_torn_one_start_on_a_line_of_their_own(tmp_path: Path) -> None:
    MetricsFile(tmp_path).log_metrics({"a": 1.0}, step=1)
    path = RunDir(tmp_path).history
    path.write_text(path.read_text() + '{"step": 2, "ti')
    MetricsFile(tmp_path).log_metrics({"a": 3.0}, step=2)
    assert lines(tmp_path) == [(1, {"a": 1.0}), (2, {"a": 3.0})]


def test_a_restarted_run_logs_no_step_twice(tmp_path: Path) -> None:
    first = MetricsFile(tmp_path)
    for step in (1, 2, 3):
        first.log_metrics({"a": float(step)}, step=step)
    second = MetricsFile(tmp_path)
    second.log_metrics({"a": 20.0}, step=2)
    assert lines(tmp_path) == [(1, {"a": 1.0}), (2, {"a": 20.0})]


def test_reader_returns_each_line_once_and_waits_for_whole_lines(tmp_path: Path) -> None:
    path = RunDir(tmp_path).history
    reader = HistoryReader(path)
    assert reader.new_lines() == []
    text = Line(1, 0.0, {"ä": 1.0}).to_text()
    path.write_text(text + text[:9])
    assert [number for number, _ in reader.new_lines()] == [0]
    path.write_text(text + text)
    assert [number for number, _ in reader.new_lines()] == [1]
    assert reader.last_step == 1


@pytest.mark.parametrize("when", [{"every_n_train_steps": 5}, {"every_n_epochs": 1}])
def test_interrupted_fit_ends_with_the_history_of_an_undisturbed_one(
    tmp_path: Path, when: dict[str, int]
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    none = LoggerConfig()
    fit(whole, make_loggers(none, whole, "a"), [])
    saver = pl.callbacks.ModelCheckpoint(
        broken / "ckpt", filename="x", save_on_train_epoch_end=False, **when
    )
    with pytest.raises(RuntimeError, match="planned"):
        fit(broken, make_loggers(none, broken, "a"), [saver], die_at=13)
    assert lines(broken)
    checkpoint = next((broken / "ckpt").glob("*.ckpt"))
    fit(broken, make_loggers(none, broken, "a"), [], checkpoint=checkpoint)
    assert lines(broken) == lines(whole)
