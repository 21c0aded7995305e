"""Plans of fake jobs, and what their one kind is said to cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sizewise.config import HalvingConfig, SweepConfig, TuningConfig
from sizewise.sweep.estimate.calibration import Measured, Texts
from sizewise.sweep.estimate.estimate import Estimate
from sizewise.sweep.estimate.work import Costs
from sizewise.sweep.plan import Plan, make_plan

from .screened import Composer

SPLITS = {"train": 80, "validation": 20, "test": 10}
KIND = Measured(
    texts={name: Texts(count, 400 * count, 8 * count) for name, count in SPLITS.items()},
    start=10.0,
    first_data=3.0,
    data=1.0,
    load=2.0,
    step=[0.5, 0.5, 0.5],
    fit=1.0,
    validation=0.1,
    base=0.4,
    tuned=0.2,
    prior=4.0,
    zero_shot={"test": "a" * 32, "validation": "b" * 32},
    answers_validation=[False, True],
    batch=8,
)


def planned(
    folder: Path,
    grid: list[tuple[str, ...]],
    halving: Any = None,
    order: str = "base",
    **tuning: Any,
) -> Plan:
    composer: Any = Composer()
    halving = HalvingConfig(**(halving or {}))
    sweep = SweepConfig(
        tuning=TuningConfig(**tuning), halving=halving, baselines=False, order=order
    )
    plan = make_plan(grid, composer, folder, sweep, "sweep.fake:tuned")
    for job in plan.pool:
        config: Any = job.config
        config["evaluation"]["timed_answers"] = 0
    return plan


def costs(plan: Plan, workers: int = 1, kind: Measured = KIND) -> Costs:
    keys = {job.identity.hash: "kind" for job in plan.pool}
    return Costs({"kind": kind}, keys, workers, plan.sweep_dir / "cache")


ESTIMATE = Estimate(
    seconds=360.0, low=300.0, high=480.0, workers=2,
    work={"training": 300.0, "answers": 300.0, "rest": 0.0}, jobs={"a": 600.0}, later=[],
    unknown={}, memory_bytes=2_100_000_000,
)  # fmt: skip
