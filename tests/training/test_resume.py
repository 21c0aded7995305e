"""An interrupted fit ends with exactly what an undisturbed one ends with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping

from sizewise.errors import TrainingError
from sizewise.training.checkpoint import read_checkpoint
from tests.training.toys import (
    adapted,
    fit_toy,
    make_module,
    quantised_base,
    tiny_base,
    toy_data,
    weights,
)


class Killed(Exception):
    """Stands for the end of the process."""


class KillAt(pl.Callback):
    """Ends a fit when a hook is called for the n-th time."""

    def __init__(self, hook: str, count: int) -> None:
        self.remaining = count
        setattr(self, hook, self._kill)

    def _kill(self, *args: Any, **kwargs: Any) -> None:
        self.remaining -= 1
        if self.remaining == 0:
            raise Killed


def history(run_dir: Path) -> list[Any]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["values"]) for line in lines]


def stopper() -> EarlyStopping:
    return EarlyStopping("val_loss", patience=1, min_delta=0.02)


def state(run_dir: Path, module: Any, result: Any) -> dict[str, Any]:
    """Everything that has to be equal: weights, history, result without times."""
    facts = {k: v for k, v in vars(result).items() if k not in ("seconds", "peak_bytes")}
    return {"weights": weights(module), "history": history(run_dir), "facts": facts}


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["facts"] == other["facts"]
    assert one["history"] == other["history"]
    assert one["weights"].keys() == other["weights"].keys() != set()
    for name, tensor in one["weights"].items():
        assert torch.equal(tensor, other["weights"][name]), name


def run_with_kills(run_dir: Path, kills: list[tuple[str, int]], **overrides: Any) -> dict[str, Any]:
    """Start again after each kill, with everything built anew as in a new process."""
    for kill in kills:
        with pytest.raises(Killed):
            fit_toy(run_dir, callbacks=[KillAt(*kill)], **overrides)
    module, result = fit_toy(run_dir, **overrides)
    return state(run_dir, module, result)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    run_dir = tmp_path_factory.mktemp("whole")
    module, result = fit_toy(run_dir)
    assert result.steps == 12
    return state(run_dir, module, result)


# 22 examples, 2 x 2 a step: 6 steps (11 micro-batches) an epoch; validation every 4 steps,
# checkpoints every 3, so that killings fall between them, on them and on the epoch's last step.
KILLS = [
    [("on_train_batch_start", 1)],
    [("on_validation_batch_start", 1)],
    [("on_train_batch_start", 6)],
    [("on_train_batch_start", 7)],
    [("on_train_batch_start", 8)],
    [("on_validation_batch_start", 4)],
    [("on_train_batch_start", 9)],
    [("on_train_batch_start", 12)],
    [("on_train_epoch_end", 1)],
    [("on_train_batch_start", 15)],
    [("on_before_optimizer_step", 9)],
    [("on_train_batch_start", 22)],
    [("on_train_end", 1)],
    [("on_train_batch_start", 9), ("on_train_batch_start", 3), ("on_validation_batch_start", 1)],
]


@pytest.mark.parametrize("kills", KILLS, ids=lambda kills: "+".join(f"{h[3:]}{n}" for h, n in kills))
def test_killed_fit_ends_as_undisturbed_one(
    tmp_path: Path, undisturbed: dict[str, Any], kills: list[tuple[str, int]]
) -> None:
    assert_same(run_with_kills(tmp_path, kills), undisturbed)


@pytest.mark.parametrize("every", [1, 2])
def test_resume_from_every_step(tmp_path: Path, undisturbed: dict[str, Any], every: int) -> None:
    """With a checkpoint at every step, a fit killed over and over still ends the same."""
    kills = [("on_train_batch_start", 4)] * (6 if every == 1 else 4)
    assert_same(run_with_kills(tmp_path, kills, checkpoint_every=every), undisturbed)
