"""A halving sweep that is killed at several moments ends with the same survivors and outcomes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.e2e.commands import ROOT, train
from tests.job.comparing import comparable, near, without_hashes

from sizewise.record.brackets import BracketRecord, read_tuning

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
SWEEP = [
    "-m", "hydra/launcher=basic", "model=nano", "lora.r=2,4", "optimizer.lr=1e-3,3e-3,1e30",
    "sweep.halving.rungs=[0.34]", "sweep.halving.keep=0.34", "sweep.halving.audit=0.5",
    "sweep.baselines=false", "seed=1", "logger=csv", "trainer.accelerator=cpu",
    "trainer.max_epochs=1", "trainer.batch_size=4", "trainer.log_every=1",
    "trainer.checkpoint_every=2", "dataset.max_train=24", "dataset.max_validation=8",
    "dataset.max_test=8", "evaluation.batch_size=8", "evaluation.timed_answers=0",
    "generation.max_new_tokens=8", "sweep.estimate=false",
    "hydra.sweeper.finish=tests.sweep.fake:finish",
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


PACKED = [
    *(each for each in SWEEP if not each.startswith(("hydra/launcher", "dataset.max_train"))),
    "hydra/launcher=local", "hydra.launcher.n_jobs=1", "hydra.launcher.threads=1",
    "sweep.packing=6", "dataset.max_train=96",
]  # fmt: skip


def begin(folder: Path) -> subprocess.Popen[bytes]:
    paths = (f"sweep.dir={folder / 'sweep'}", f"paths.cache={folder / 'cache'}")
    folder.mkdir(exist_ok=True)
    with (folder / "said.txt").open("ab") as said:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *PACKED, *paths],
            stdout=said, stderr=said, start_new_session=True, cwd=ROOT,
        )  # fmt: skip


def written(folder: Path) -> int:
    """Bytes of all learning curves and answers: they grow while jobs are at work."""
    files = [*folder.glob("sweep/*/metrics.jsonl"), *folder.glob("sweep/*/predictions/*.jsonl")]
    return sum(path.stat().st_size for path in files)


ROUNDING = 1e-4  # who is packed with whom differs after a kill


@pytest.mark.long
def test_packed_and_killed_at_twelve_random_moments_it_ends_with_the_same_survivors(
    tmp_path: Path,
) -> None:
    whole, killed, moments = tmp_path / "whole", tmp_path / "killed", random.Random(7)
    assert begin(whole).wait(900) == 0, (whole / "said.txt").read_text()
    kills = 0
    while kills < 12:
        process, before, end = begin(killed), written(killed), time.monotonic() + 300
        while written(killed) == before and process.poll() is None:
            assert time.monotonic() < end, (killed / "said.txt").read_text()
            time.sleep(0.02)
        time.sleep(moments.uniform(0, 1.5))
        if process.poll() is not None:
            break  # it came to its end between two kills
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills >= 6
    assert begin(killed).wait(900) == 0, (killed / "said.txt").read_text()
    both = [read_tuning(folder / "sweep") for folder in (whole, killed)]
    assert both[0] is not None
    assert both[1] is not None
    (expected,), (found,) = both[0].brackets, both[1].brackets
    states = [(c.run, c.state, c.step, c.tokens) for c in expected.candidates]
    assert [(c.run, c.state, c.step, c.tokens) for c in found.candidates] == states
    for one, other in zip(found.candidates, expected.candidates, strict=True):
        assert list(one.values) == near(list(other.values), ROUNDING)
        if other.state in ("kept", "audited"):
            runs = [without_hashes(comparable(f / "sweep" / other.run)) for f in (killed, whole)]
            assert runs[0] == near(runs[1], ROUNDING)
