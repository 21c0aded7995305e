"""A halving sweep that is killed at several moments ends with the same survivors and outcomes."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from tests.e2e.commands import train
from tests.job.comparing import comparable

from sizewise.record.brackets import BracketRecord, read_tuning

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
SWEEP = [
    "-m", "hydra/launcher=basic", "model=nano", "lora.r=2,4", "optimizer.lr=1e-3,3e-3,1e30",
    "sweep.halving.rungs=[0.34]", "sweep.halving.keep=0.34", "sweep.halving.audit=0.5",
    "sweep.baselines=false", "seed=1", "logger=csv", "trainer.accelerator=cpu",
    "trainer.max_epochs=1", "trainer.batch_size=4", "trainer.log_every=1",
    "trainer.checkpoint_every=2", "dataset.max_train=24", "dataset.max_validation=8",
    "dataset.max_test=8", "evaluation.batch_size=8", "generation.max_new_tokens=8",
]  # fmt: skip
# Which checkpoint that a process is about to write ends it: at the rung of the third candidate;
# two candidates later, while a survivor goes on; and in the midst of another one.
KILLS = (3, 4, 2)


def run(folder: Path, code: int, kill: int = 0) -> BracketRecord:
    folder.mkdir(exist_ok=True)
    paths = (f"sweep.dir={folder / 'sweep'}", f"paths.cache={folder / 'cache'}")
    said = folder / "said.txt"
    name = ("last.ckpt", kill) if kill else ("", 0)
    assert train(said, *SWEEP, *paths, kill=name) == code, said.read_text()
    record = read_tuning(folder / "sweep")
    assert record is not None
    (bracket,) = record.brackets
    return bracket


def told(bracket: BracketRecord) -> list[tuple[object, ...]]:
    """All that is recorded of the candidates but their seconds."""
    return [(c.run, c.state, c.values, c.step, c.tokens, c.final) for c in bracket.candidates]


def test_killed_with_sigkill_it_ends_with_the_same_survivors_and_outcomes(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", 0)
    for kill in KILLS:
        run(tmp_path / "killed", -signal.SIGKILL, kill=kill)
    killed = run(tmp_path / "killed", 0)
    assert told(killed) == told(whole)
    states = [candidate.state for candidate in whole.candidates]
    assert (states.count("diverged"), states.count("kept")) == (2, 3)
    for candidate in whole.candidates:
        runs = [tmp_path / name / "sweep" / candidate.run for name in ("whole", "killed")]
        if candidate.state in ("kept", "audited"):
            assert comparable(runs[0]) == comparable(runs[1])
