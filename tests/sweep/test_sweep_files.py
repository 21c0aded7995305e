"""Every named sweep and every W&B sweep file against the schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from sizewise.commands.run import prepare
from sizewise.composition.jobs import JobComposer
from sizewise.config import HalvingConfig, SweepConfig, TuningConfig, conf_dir
from sizewise.sweep.grid import expand
from sizewise.sweep.plan import make_plan

SWEEPS = Path(__file__).resolve().parents[2] / "sweeps"
# "none" takes back the sweep that an experiment brings along: it is the one without jobs.
NAMED = sorted(path for path in (SWEEPS / "sweep").glob("*.yaml") if path.stem != "none")
WANDB = sorted((SWEEPS / "wandb").glob("*.yaml"))


@pytest.fixture(scope="module")
def composer() -> Any:
    prepare()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield JobComposer(GlobalHydra.instance().config_loader(), "train", [])  # type: ignore[arg-type]


def test_there_are_sweeps_to_check() -> None:
    assert "size_vs_specialization" in {path.stem for path in NAMED}
    assert len(WANDB) >= 2


@pytest.mark.parametrize("path", NAMED, ids=lambda path: path.stem)
def test_every_job_of_a_named_sweep_is_valid(
    path: Path, composer: JobComposer, tmp_path: Path
) -> None:
    sweep = read(path)
    grid = expand([], sweep.arms, composer.parse)
    plan = make_plan(grid, composer, tmp_path, sweep, "x:y")
    assert sweep.description
    assert len(plan.to_do) > 1


def read(path: Path) -> SweepConfig:
    written = OmegaConf.create({"sweep": yaml.safe_load(path.read_text())})
    values = OmegaConf.to_container(written, resolve=True)["sweep"]  # type: ignore[index, call-overload]
    parts = {"tuning": TuningConfig, "halving": HalvingConfig}
    made = {name: kind(**values.get(name, {})) for name, kind in parts.items()}
    return SweepConfig(**{**values, **made})


def test_every_shipped_sweep_that_trains_tunes_and_has_three_seeds() -> None:
    for path in NAMED:
        sweep, arms = read(path), read(path).arms.values()
        trained = [arm for arm in arms if "lora=none" not in arm]
        if trained and path.stem != "five_ancestors":  # which is what the projects did
            assert sweep.tuning.on, path
            assert all("seed=1,2,3" in arm for arm in trained), path


@pytest.mark.parametrize("path", WANDB, ids=lambda path: path.stem)
def test_a_wandb_sweep_sets_keys_that_exist(path: Path, composer: JobComposer) -> None:
    sweep = yaml.safe_load(path.read_text())
    assert "${args_no_hyphens}" in sweep["command"]
    assert sweep["program"] == "train.py"
    for key, choice in sweep["parameters"].items():
        low = choice.get("values") or [choice.get("value", choice.get("min"))]
        for value in [*low, *([choice["max"]] if "max" in choice else [])]:
            composer.compose([f"{key}={value}"])
