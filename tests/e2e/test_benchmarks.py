"""The benchmark of sweeps runs, and measures what it says it does."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest
from benchmarks import sweep
from tests.e2e.commands import begin, printed
from tests.training.jobs import exit_code

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def run(checkout: Path, name: str, command: list[str], cwd: Path, **environment: str) -> float:
    """Run a command of a benchmark, and see it end well; what it computes is not counted.

    On one thread, and the full grid is not reported on: the benchmark reads its records alone.
    """
    more = ["hydra.launcher.threads=1"] if Path(command[1]).name == "train.py" else []
    if name == "full grid":
        more.append("hydra.sweeper.finish=sweep.fake:finish")
    assert exit_code(begin([*command[1:], *more], cwd, environment)) == 0, printed(cwd)
    return 1.0


def test_a_halved_sweep_is_measured_against_the_grid_and_against_hydra_with_hf_trainer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "run_with", run)
    sweep.main(["--tiny", "--folder", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    table = lines.index(f"2 configurations, {os.cpu_count()} cores")
    assert [line.split("|")[1].strip() for line in lines[table + 3 :]] == [
        "halved", "full grid", "Hydra basic, HF Trainer, length groups",
        "Hydra basic, HF Trainer, its defaults",
    ]  # fmt: skip
    ended = [len(list((tmp_path / n).glob("*/outcome.json"))) for n in ("halved", "grid")]
    assert ended == [1, 2]
    assert "glyph" not in "".join(printed(tmp_path / "halved")), "libraries draw in silence"
    assert len(list((tmp_path / "peer").glob("*/*/result.json"))) == 4


def test_a_step_of_ours_and_of_hf_trainer_lowers_the_loss_by_the_same_amount(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(Path(sweep.__file__).parent))
    training_step = importlib.import_module("training_step")
    ways = training_step.ways()
    names = ("sizewise", "HF Trainer padded", "HF Trainer length-grouped, answer logits")
    compared = {name: ways[name] for name in names}
    falls = training_step.check_agreement(compared, 4)
    assert set(falls) == set(compared)
    assert all(fall == pytest.approx(falls["sizewise"], rel=1e-4) for fall in falls.values())


def test_the_gpu_benchmark_goes_its_whole_way_on_the_cpu(tmp_path: Path) -> None:
    script = Path(sweep.__file__).with_name("gpu.py")
    run(sweep.ROOT, "gpu", [sys.executable, str(script), "--tiny"], tmp_path)
    rows = [line for line in printed(tmp_path)[0].splitlines() if line.startswith("| ")]
    said = " ".join(rows)
    assert "training, against HF Trainer" in said
    assert "base nf4, gradient_checkpointing=true" in said
    assert "answers and likelihoods" in said
    assert "2 adapters in one pass" in said
    assert len(rows) >= 9


def test_the_benchmark_of_packs_compares_the_same_gradients_and_the_same_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(Path(sweep.__file__).parent))
    packing = importlib.import_module("packing")
    monkeypatch.setattr(sys, "argv", ["packing.py", "--tiny"])
    packing.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| 2 ")]
    assert len(lines) == 2, "one of steps, one of answers"
    assert all(float(line.split("|")[-2]) > 0 for line in lines)
