"""A Pareto search that is killed and goes on, and one whose trials fail."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.commands import begin, printed
from tests.training.jobs import exit_code

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.e2e, pytest.mark.slow]
TRIALS = 12


def start(folder: Path, *overrides: str, **environment: str) -> Any:
    command = [
        str(ROOT / "train.py"), "-m", "hydra/sweeper=search", "hydra.sweeper.parallel=2",
        "optimizer.lr=tag(log,interval(1e-5,1e-3))", *overrides,
        f"hydra.sweeper.n_trials={TRIALS}", f"paths.sweeps={folder}", "sweep.name=all",
        "hydra.sweeper.job=sweep.fake:job", "hydra.sweeper.finish=sweep.fake:finish",
    ]  # fmt: skip
    path = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    return begin(command, folder, {"PYTHONPATH": path, **environment})


def ended(folder: Path) -> int:
    return len(list((folder / "all").glob("*/outcome.json")))


def test_killed_at_the_seventh_trial_it_ends_with_all_and_a_front(tmp_path: Path) -> None:
    options = (
        "lora.r=2,4,8", "seed=range(1,9)", "hydra.launcher.n_jobs=2",
        "hydra.sweeper.objectives=[minimize:objective,minimize:model/params_total]",
    )  # fmt: skip
    never = str(tmp_path / "gate")
    process = start(tmp_path, *options, FAKE_GATE=never, FAKE_GATE_AFTER="6")
    end = time.monotonic() + 300
    try:
        while ended(tmp_path) < 6:
            assert process.is_alive(), "it ended before it could be killed"
            assert time.monotonic() < end
            time.sleep(0.02)
    finally:
        if process.is_alive():
            os.killpg(process.pid, signal.SIGKILL)
    process.join()
    before = ended(tmp_path)
    process = start(tmp_path, *options)
    assert exit_code(process) == 0, printed(tmp_path)
    shown, _ = printed(tmp_path)
    found = json.loads((tmp_path / "all" / "search.json").read_text())
    assert before == 6
    assert [trial["state"] for trial in found["trials"]] == ["complete"] * TRIALS
    assert found["front"]
    assert "Pareto front" in shown
    front = [found["trials"][number]["values"] for number in found["front"]]
    best = min(trial["values"]["objective"] for trial in found["trials"])
    assert best in {values["objective"] for values in front}
    traces = (tmp_path / "all").glob("*/trace.jsonl")
    # A job that was killed after it wrote its outcome has no "end".
    assert all(path.read_text().count('"end"') <= 1 for path in traces)


def test_failed_trials_are_passed_over(tmp_path: Path) -> None:
    process = start(tmp_path, "seed=1,901,906", "lora.r=2")
    assert exit_code(process) == 0, printed(tmp_path)
    trials = json.loads((tmp_path / "all" / "search.json").read_text())["trials"]
    states = {trial["overrides"][-1]: trial["state"] for trial in trials}
    seeds = {text for trial in trials for text in trial["overrides"] if text.startswith("seed=")}
    assert len(trials) == TRIALS
    assert seeds == {"seed=1", "seed=901", "seed=906"}
    for trial in trials:
        expected = "complete" if "seed=1" in trial["overrides"] else "fail"
        assert trial["state"] == expected, states
