"""A fit that stops at a rung and goes on is the one that was never stopped."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_lightning.callbacks import EarlyStopping
from tests.training.test_resume import assert_same, history, state
from tests.training.toys import (
    KillAt,
    KilledError,
    adapted,
    fit_toy,
    make_module,
    tiny_base,
    toy_data,
)
from torch import Tensor

from sizewise.errors import DivergedError, TrainingError
from sizewise.record.directories import RunDir
from sizewise.record.stops import FitStopped, Stop
from sizewise.training.lightning_internals import StepCallback
from sizewise.training.milestones import SAMPLES, is_sampled
from sizewise.training.module import CausalModule, summed_nll
from sizewise.training.trainable import load_trainable, snapshot


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    run_dir = tmp_path_factory.mktemp("whole")
    return state(run_dir, *fit_toy(run_dir))


def stopped(run_dir: Path, share: float, **options: Any) -> Stop:
    with pytest.raises(FitStopped) as left:
        fit_toy(run_dir, stop_at=share, **options)
    return left.value.stop


# 12 steps, validations after 4, 8 and 12, an epoch has 6: a rung that is no validation, one that
# is, one at the end of an epoch, and two in turn.
@pytest.mark.parametrize("shares", [[0.25], [1 / 3], [0.5], [0.42, 0.75]])
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


class Weights(StepCallback):
    """Keeps the weights after every step."""

    def __init__(self) -> None:
        self.after: dict[int, dict[str, Tensor]] = {}

    def on_step_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.after[trainer.global_step] = snapshot(pl_module.model)


def test_the_loss_at_a_rung_is_that_of_the_mean_of_the_latest_weights(tmp_path: Path) -> None:
    """At step 10 of 12 those after the steps 5 to 10."""
    seen, module = Weights(), make_module(adapted(tiny_base()))
    stop = stopped(tmp_path, 10 / 12, module=module, callbacks=[seen])
    latest = [seen.after[step] for step in range(5, 11)]
    mean = {name: sum(w[name] for w in latest) / len(latest) for name in latest[0]}
    own = snapshot(module.model)
    assert all(torch.equal(own[name], seen.after[10][name]) for name in own), "they are put back"
    load_trainable(module.model, mean, "")
    assert stop.value == pytest.approx(validation_loss(module), rel=1e-6)
    assert stop.averaged == 6


@settings(deadline=None)
@given(rung=st.integers(1, 5000))
def test_few_steps_are_averaged_and_the_last_is_one_of_them(rung: int) -> None:
    sampled = [step for step in range(1, rung + 5) if is_sampled(step, rung)]
    assert sampled[-1] == rung
    assert 1 <= len(sampled) <= SAMPLES
    assert sampled[0] > 0.39 * rung - 1
    assert len(sampled) >= min(SAMPLES // 2, int(0.6 * rung))


def test_a_kill_among_the_averaged_steps_changes_nothing(tmp_path: Path) -> None:
    whole = stopped(tmp_path / "whole", 10 / 12)
    for batch in (13, 18):  # two micro-batches a step; saved after the steps 3, 4, 6, 8 and 9
        folder = tmp_path / str(batch)
        with pytest.raises(KilledError):
            fit_toy(folder, callbacks=[KillAt("on_train_batch_start", batch)], stop_at=10 / 12)
        again = stopped(folder, 10 / 12)
        assert (again.value, again.averaged) == (whole.value, 6)


def test_what_a_rung_cost_is_recorded(tmp_path: Path) -> None:
    stop = stopped(tmp_path / "cut", 0.25)
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

    options = {"validate_every": 2, "lr": 0.3}
    whole = state(
        tmp_path / "whole", *fit_toy(tmp_path / "whole", callbacks=[stopper()], **options)
    )
    stopped(tmp_path / "cut", 0.25, callbacks=[stopper()], **options)
    cut = state(tmp_path / "cut", *fit_toy(tmp_path / "cut", callbacks=[stopper()], **options))
    assert_same(cut, whole)


def test_a_fit_that_stops_early_is_compared_at_the_rung_and_finished_if_it_is_kept(
    tmp_path: Path,
) -> None:
    """By the lowest loss that it had, at every rung; its end is that of the undisturbed fit."""

    def options() -> dict[str, Any]:
        stopper = EarlyStopping("val_loss", patience=2, min_delta=10.0)
        return {"validate_every": 2, "callbacks": [stopper]}

    whole = state(tmp_path / "whole", *fit_toy(tmp_path / "whole", **options()))
    for share in (0.5, 0.75):
        stop = stopped(tmp_path / "cut", share, **options())
        assert (stop.step, stop.share, stop.of_steps, stop.ended) == (4, share, 12, True)
        seen = [values.get("val_loss", math.inf) for _, values in history(tmp_path / "cut")]
        assert stop.value == min(seen)
        assert not RunDir(tmp_path / "cut").fit.exists(), "nothing is scored"
    assert_same(state(tmp_path / "cut", *fit_toy(tmp_path / "cut", **options())), whole)


def test_a_fit_beyond_the_rung_it_is_to_stop_at_trains_no_further(tmp_path: Path) -> None:
    stopped(tmp_path, 0.75)
    before = history(tmp_path)
    module = make_module(adapted(tiny_base()))
    stop = stopped(tmp_path, 0.25, module=module)
    assert (stop.step, stop.share) == (9, 0.25), "it is compared as it is"
    assert stop.value == pytest.approx(validation_loss(module), rel=1e-6), "on all examples"
    assert history(tmp_path) == before


def validation_loss(module: CausalModule) -> float:
    module.model.eval()
    sums = [summed_nll(module.answer_nll, batch) for batch in toy_data().val_dataloader()]
    return float(sum(nll for nll, _ in sums)) / sum(tokens for _, tokens in sums)


def test_a_candidate_that_diverges_is_a_result_and_anything_else_is_an_error(
    tmp_path: Path,
) -> None:
    options: dict[str, Any] = {"lr": 1e30, "gradient_clip": None}
    stop = stopped(tmp_path / "candidate", 0.5, **options)
    assert stop.diverged
    assert "at optimiser step" in stop.reason
    with pytest.raises(DivergedError):
        fit_toy(tmp_path / "plain", **options)


def test_without_validation_there_is_nothing_to_compare_by(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"compared by the validation loss, and there are no"):
        fit_toy(tmp_path, data=toy_data(validation=0), stop_at=0.5)
