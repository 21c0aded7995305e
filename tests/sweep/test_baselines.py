"""Classical baselines that a sweep adds wherever answers come from a closed set."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

import sizewise.metrics
from sizewise.commands.run import prepare
from sizewise.composition.jobs import JobComposer
from sizewise.config import SweepConfig, conf_dir
from sizewise.sweep.baselines import is_closed
from sizewise.sweep.plan import Plan, make_plan

LORA = ("lora=all_linear", "lora.r=4", "trainer.batch_size=16", "evaluation.batch_size=64")


@pytest.fixture(scope="module")
def composer() -> Iterator[Any]:
    prepare()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield JobComposer(GlobalHydra.instance().config_loader(), "train", [])  # type: ignore[arg-type]


def planned(composer: Any, folder: Path, *grid: tuple[str, ...], **options: Any) -> Plan:
    return make_plan(grid, composer, folder, SweepConfig(**options), "x:y")


def baselines(plan: Plan) -> list[dict[str, Any]]:
    return [dict(job.config) for job in plan.jobs if job.config["model"]["family"] == "classical"]


def test_what_planning_knows_without_torch_is_what_the_metrics_declare() -> None:
    declared = set()
    for module in pkgutil.iter_modules(sizewise.metrics.__path__):
        found = vars(importlib.import_module(f"sizewise.metrics.{module.name}"))
        for name, kind in found.items():
            own = getattr(kind, "__module__", "") == f"sizewise.metrics.{module.name}"
            if own and getattr(kind, "closed", False):
                declared.add(f"{kind.__module__}.{name}")
    assert declared == sizewise.metrics.CLOSED_ANSWERS != set()


def test_somebodys_own_metric_says_so_itself(tmp_path: Path) -> None:
    from sizewise.metrics.label import Label

    class Mine(Label):
        """A label of somebody's own."""

    Mine.__module__ = __name__
    globals()["Mine"] = Mine
    assert is_closed({"mine": {"_target_": f"{__name__}.Mine"}})
    assert not is_closed({"x": {"_target_": "sizewise.metrics.rouge.Rouge"}, "y": None})
    assert not is_closed({"gone": {"_target_": "nowhere.at_all.Metric"}})


def test_every_sweep_over_codes_gets_both_baselines_once(composer: Any, tmp_path: Path) -> None:
    grid = [
        (f"model={name}", *LORA, f"seed={seed}") for name in ("nano", "micro") for seed in (1, 2)
    ]
    plan = planned(composer, tmp_path, *grid)
    found = baselines(plan)
    assert (len(plan.jobs), plan.added) == (4 + 2, 2)
    assert [config["model"]["name"] for config in found] == ["majority", "tfidf_logreg"]
    for config in found:
        assert config["lora"]["method"] == config["quantization"]["method"] == "none"
        assert config["dataset"]["few_shot"] == 0
    assert baselines(planned(composer, tmp_path, *grid, baselines=False)) == []


def test_a_baseline_that_was_named_is_not_added_again(composer: Any, tmp_path: Path) -> None:
    named = ("model=tfidf_logreg", "lora=none")
    plan = planned(composer, tmp_path, ("model=nano", *LORA), named)
    assert plan.added == 1
    assert sorted(c["model"]["name"] for c in baselines(plan)) == ["majority", "tfidf_logreg"]


def test_there_is_one_for_each_training_set_and_none_for_a_wording(
    composer: Any, tmp_path: Path
) -> None:
    zero_shot = ("model=mini", "lora=none")
    plan = planned(
        composer,
        tmp_path,
        ("model=nano", *LORA, "dataset.max_train=50"),
        ("model=nano", *LORA, "dataset.max_train=100"),
        (*zero_shot, "dataset.few_shot=3"),
        (*zero_shot, 'dataset.prompt="{dialogue} Which ICD-10-CM code is that?"'),
    )
    sizes = [(c["model"]["name"], c["dataset"]["max_train"]) for c in baselines(plan)]
    names = ("majority", "tfidf_logreg")
    assert sorted(sizes) == [(name, size) for name in names for size in (50, 100)]


def test_where_nothing_is_trained_they_stand_beside_what_is_asked(
    composer: Any, tmp_path: Path
) -> None:
    plan = planned(composer, tmp_path, ("model=mini", "lora=none"), ("model=nano", "lora=none"))
    assert plan.added == 2


def test_free_text_and_training_alone_get_none(composer: Any, tmp_path: Path) -> None:
    free = ("model=nano", *LORA, "dataset=counseling")
    assert planned(composer, tmp_path, free).added == 0
    assert planned(composer, tmp_path, ("model=nano", *LORA, "stage=train")).added == 0
