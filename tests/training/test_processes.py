"""Real processes: killed with SIGKILL, interrupted, and two that train together."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from tests.training.jobs import exit_code, rank_environments, read, start

pytestmark = pytest.mark.e2e


def test_killed_again_and_again(tmp_path: Path) -> None:
    """In a validation, in the midst of an accumulation, after an epoch, and in the last step."""
    cut = tmp_path / "cut"
    for kill in (
        ("on_validation_batch_end", 3),
        ("on_train_batch_start", 5),
        ("on_train_epoch_end", 1),
        ("on_before_optimizer_step", 4),
    ):
        assert exit_code(start(cut, kill)) == -signal.SIGKILL
        assert not (cut / "fit.json").exists()
    assert exit_code(start(cut)) == 0
    assert exit_code(start(tmp_path / "whole")) == 0
    (record, found), (expected_record, expected) = read(cut), read(tmp_path / "whole")
    assert record == expected_record
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_ctrl_c_leaves_no_record(tmp_path: Path) -> None:
    """An uncaught KeyboardInterrupt: what the interpreter turns into exit status 130."""
    process = start(tmp_path / "run", ("on_train_batch_start", 3, signal.SIGINT))
    assert exit_code(process) != 0
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
    assert not (tmp_path / "run" / "fit.json").exists()


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """Same effective batch, same losses; a killed pair goes on, and only the first one writes."""
    two, one = tmp_path / "two", tmp_path / "one"
    split = {"batch_size": 2, "accumulate": 1, "devices": 2, "strategy": "ddp"}
    for kill in (("on_train_batch_start", 5), ()):
        ranks = [
            start(two, kill, 0.0, environment, **split) for environment in rank_environments(2)
        ]
        codes = [exit_code(rank) for rank in ranks]
        assert codes == ([-signal.SIGKILL] * 2 if kill else [0, 0])
    assert exit_code(start(one, (), 0.0, batch_size=4, accumulate=1)) == 0
    (record, found), (expected_record, expected) = read(two), read(one)
    for key in ("steps", "tokens", "answer_tokens", "best_step"):
        assert record[key] == expected_record[key]
    assert losses(two) == pytest.approx(losses(one), abs=1e-5)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=2e-5, rtol=1e-3)


def test_one_validation_example_for_two_ranks(tmp_path: Path) -> None:
    """A rank that had nothing to validate on left the other one waiting for ever."""
    two, one = tmp_path / "two", tmp_path / "one"
    options = {"accumulate": 1, "max_epochs": 1, "validation": 1}
    split = {"batch_size": 2, "devices": 2, "strategy": "ddp"}
    ranks = [start(two, (), 0.0, env, **options, **split) for env in rank_environments(2)]
    assert [exit_code(rank) for rank in ranks] == [0, 0]
    assert exit_code(start(one, (), 0.0, batch_size=4, **options)) == 0
    expected = read(one)[0]["best_val_loss"]
    assert read(two)[0]["best_val_loss"] == pytest.approx(expected, abs=1e-5)


def losses(run_dir: Path) -> list[float]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    found = [v for line in lines for k, v in line["values"].items() if k.endswith("_loss")]
    assert len(found) == 16
    return found
