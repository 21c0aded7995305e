"""Point 17: an installed package trains and scores by itself, with its options and named sweeps."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
PLAN = ("sweep.dry_run=true", "sweep.estimate=false")
TOY = (
    "dataset.max_train=40", "dataset.max_validation=8", "dataset.max_test=12", "logger=none",
    "evaluation.timed_answers=0", "report=false", "sweep.estimate=false",
)  # fmt: skip


ONE_WORKER = ("hydra.launcher.n_jobs=1", "hydra.launcher.threads=1")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked where nothing of the checkout is."""
    place = tmp_path_factory.mktemp("installed")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--wheel-dir", str(place), str(CHECKOUT)],
        check=True,
    )  # fmt: skip
    (wheel,) = place.glob("sizewise-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place / "site")
    return place / "site"


def sizewise(installed: Path, folder: Path, *arguments: str) -> str:
    """Run the installed command in ``folder``; return what it said."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "WANDB_MODE": "offline"}
    done = subprocess.run(
        [sys.executable, "-m", "sizewise.commands.main", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.e2e
@pytest.mark.slow
def test_an_installed_wheel_runs_a_sweep_of_its_own_and_one_of_the_folder(
    installed: Path, tmp_path: Path
) -> None:
    assert "tests" not in {path.name for path in installed.iterdir()}
    own = tmp_path / "sweeps" / "sweep"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text(
        "name: mine\narms:\n  words:\n    - model=majority,tfidf_logreg\n    - lora=none\n",
        encoding="utf-8",
    )
    # The folder's own ``sweeps``, first on the path of ``python -m``, hides none of the package's.
    planned = sizewise(installed, tmp_path, "train", "sweep=rank_ladder", "lora.r=2", *PLAN)
    assert "rank_ladder" in planned
    assert "at several learning rates: 3 jobs" in planned
    assert "lora.r=" in planned
    said = sizewise(installed, tmp_path, "train", "sweep=mine", *ONE_WORKER, *TOY)
    assert "2 done" in said or said.count(": done") == 2
    records = sorted(tmp_path.glob("multirun/mine/*/outcome.json"))
    assert len(records) == 2


@pytest.mark.e2e
@pytest.mark.slow
def test_an_installed_wheel_trains_one_run_and_scores_it_again(
    installed: Path, tmp_path: Path
) -> None:
    options = ("lora.r=2", "trainer.max_steps=1", "generation.max_new_tokens=2", *TOY)
    sizewise(installed, tmp_path, "train", "hydra.run.dir=run", *options)
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()
    sizewise(installed, tmp_path, "evaluate", "run=run", "metric=[length]", "logger=none")
    assert len(list(tmp_path.glob("outputs/*/outcome.json"))) == 1
