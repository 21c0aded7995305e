"""Point 17: an installed package trains and scores by itself, with its options and named sweeps."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.forks import Forks, forking

CHECKOUT = Path(__file__).parents[2]
PLAN = ("sweep.dry_run=true", "sweep.estimate=false")
TOY = (
    "dataset.max_train=40", "dataset.max_validation=8", "dataset.max_test=12", "logger=none",
    "evaluation.timed_answers=0", "report=false", "sweep.estimate=false",
)  # fmt: skip


ONE_WORKER = ("hydra.launcher.n_jobs=1", "hydra.launcher.threads=1")
# What the commands import of others, once for all; of sizewise each imports the wheel's own.
LIBRARIES = (
    "hydra", "torch", "pytorch_lightning", "transformers.models.qwen3.modeling_qwen3",
    "transformers.tokenization_utils_tokenizers", "transformers.generation.utils", "torchmetrics",
    "peft", "scipy.stats", "pandas", "matplotlib.pyplot",
)  # fmt: skip
COMMAND = """
import os, runpy, sys
sys.path[0], sys.argv = os.getcwd(), ["sizewise", *{arguments!r}]
assert not [name for name in sys.modules if name.startswith("sizewise")]
import sizewise
assert sizewise.__file__.startswith({installed!r}), sizewise.__file__
runpy.run_module("sizewise.commands.main", run_name="__main__", alter_sys=True)
"""


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


@pytest.fixture(scope="module")
def forks(installed: Path) -> Iterator[Forks]:
    """Forks in which commands run as ``python -m`` runs them; their workers are new processes."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "WANDB_MODE": "offline"}
    with forking(LIBRARIES, environment) as made:
        yield made


def sizewise(forks: Forks, installed: Path, folder: Path, *arguments: str) -> str:
    """Run the installed command in ``folder``; return what it said."""
    code = COMMAND.format(arguments=arguments, installed=str(installed))
    done = forks.run(code, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.e2e
@pytest.mark.slow
def test_an_installed_wheel_runs_a_sweep_of_its_own_and_one_of_the_folder(
    forks: Forks, installed: Path, tmp_path: Path
) -> None:
    assert "tests" not in {path.name for path in installed.iterdir()}
    own = tmp_path / "sweeps" / "sweep"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text(
        "name: mine\narms:\n  words:\n    - model=majority,tfidf_logreg\n    - lora=none\n",
        encoding="utf-8",
    )
    # The folder's own ``sweeps``, first on the path of ``python -m``, hides none of the package's.
    planned = sizewise(forks, installed, tmp_path, "train", "sweep=rank_ladder", "lora.r=2", *PLAN)
    assert "rank_ladder" in planned
    assert "at several learning rates: 3 jobs" in planned
    assert "lora.r=" in planned
    said = sizewise(forks, installed, tmp_path, "train", "sweep=mine", *ONE_WORKER, *TOY)
    assert "2 done" in said or said.count(": done") == 2
    records = sorted(tmp_path.glob("multirun/mine/*/outcome.json"))
    assert len(records) == 2


@pytest.mark.e2e
@pytest.mark.slow
def test_an_installed_wheel_trains_one_run_and_scores_it_again(
    forks: Forks, installed: Path, tmp_path: Path
) -> None:
    options = ("lora.r=2", "trainer.max_steps=1", "generation.max_new_tokens=2", *TOY)
    sizewise(forks, installed, tmp_path, "train", "hydra.run.dir=run", *options)
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()
    sizewise(forks, installed, tmp_path, "evaluate", "run=run", "metric=[length]", "logger=none")
    assert len(list(tmp_path.glob("outputs/*/outcome.json"))) == 1
