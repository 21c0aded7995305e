"""A fit that stops at a rung and goes on is the one that was never stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning.callbacks import EarlyStopping
from tests.training.test_resume import assert_same, history, state
from tests.training.toys import KillAt, KilledError, fit_toy, toy_data

from sizewise.errors import DivergedError, TrainingError
from sizewise.record.directories import RunDir
from sizewise.record.stops import FitStopped, Stop


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    run_dir = tmp_path_factory.mktemp("whole")
    return state(run_dir, *fit_toy(run_dir))


def stopped(run_dir: Path, share: float, **settings: Any) -> Stop:
    with pytest.raises(FitStopped) as left:
        fit_toy(run_dir, stop_at=share, **settings)
    return left.value.stop


# 12 steps with validations after 4, 8 and 12: rungs that are no validation, one, and two in turn.
@pytest.mark.parametrize("shares", [[0.25], [1 / 3], [0.42], [1 / 3, 0.75]])
def test_what_goes_on_from_a_rung_is_the_undisturbed_fit(
    tmp_path: Path, undisturbed: dict[str, Any], shares: list[float]
) -> None:
    for share in shares:
        stop = stopped(tmp_path, share)
        assert (stop.step, stop.of_steps, stop.share) == (round(12 * share), 12, share)
        assert not RunDir(tmp_path).fit.exists(), "a stopped fit is not done"
    assert_same(state(tmp_path, *fit_toy(tmp_path)), undisturbed)


def test_the_schedule_is_that_of_all_steps(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    stopped(tmp_path, 0.5)
    before = history(tmp_path)
    assert "lr" in before[-1][1] | before[-2][1]
    assert before == undisturbed["history"][: len(before)]


def test_the_loss_at_a_rung_is_the_validation_loss_there(tmp_path: Path) -> None:
    stop = stopped(tmp_path / "cut", 0.25)
    fit_toy(tmp_path / "often", validate_every=1)
    values = {step: logged for step, logged in history(tmp_path / "often") if "val_loss" in logged}
    assert stop.value == pytest.approx(values[3]["val_loss"], rel=1e-12)
    assert stop.seconds is not None
    assert stop.seconds > 0
    assert stop.tokens is not None
    assert stop.tokens > 0


@pytest.mark.parametrize(
    "kill",
    [("on_train_batch_start", 5), ("on_train_end", 1), ("on_fit_end", 1)],
    ids=lambda kill: kill[0],
)
def test_a_kill_before_the_stop_was_recorded_changes_nothing(
    tmp_path: Path, kill: tuple[str, int]
) -> None:
    whole = stopped(tmp_path / "whole", 0.25)
    with pytest.raises(KilledError):
        fit_toy(tmp_path / "cut", callbacks=[KillAt(*kill)], stop_at=0.25)
    again = stopped(tmp_path / "cut", 0.25)
    assert (again.step, again.value, again.tokens) == (whole.step, whole.value, whole.tokens)


def test_early_stopping_does_not_see_a_rung(tmp_path: Path) -> None:
    def stopper() -> EarlyStopping:
        return EarlyStopping("val_loss", patience=1, min_delta=0.02)

    settings = {"validate_every": 2, "lr": 0.3}
    whole = state(
        tmp_path / "whole", *fit_toy(tmp_path / "whole", callbacks=[stopper()], **settings)
    )
    stopped(tmp_path / "cut", 0.25, callbacks=[stopper()], **settings)
    cut = state(tmp_path / "cut", *fit_toy(tmp_path / "cut", callbacks=[stopper()], **settings))
    assert_same(cut, whole)


def test_a_candidate_that_diverges_is_a_result_and_anything_else_is_an_error(
    tmp_path: Path,
) -> None:
    settings: dict[str, Any] = {"lr": 1e30, "gradient_clip": None}
    stop = stopped(tmp_path / "candidate", 0.5, **settings)
    assert stop.diverged
    assert "at optimiser step" in stop.reason
    with pytest.raises(DivergedError):
        fit_toy(tmp_path / "plain", **settings)


def test_without_validation_there_is_nothing_to_compare_by(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"sweep\.tuning compares learning rates"):
        fit_toy(tmp_path, data=toy_data(validation=0), stop_at=0.5)
