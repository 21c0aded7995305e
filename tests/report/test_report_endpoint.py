"""A model behind a server in the comparison: its size is not known, its money is measured."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from tests.report.factory import Spec, Task, plant, share

from sizewise.config import PricesConfig
from sizewise.report.comparison.compare import SetComparison, compare
from sizewise.report.comparison.pairs import SMALL_LARGE
from sizewise.report.page.setup import setup_of
from sizewise.report.page.write import write_report

TASK = Task(examples=300)
NAME = "icd10/exact_match"
SERVER = {
    "name": "big", "path": "big", "family": "endpoint", "model_type": "endpoint",
    "params_total": 0, "params_base": 0, "base_bytes": 0, "memory_bytes": 0, "dtype": "unknown",
}  # fmt: skip


def sweep(root: Path, large: float, cost: float = 2.5) -> SetComparison:
    for seed in (1, 2, 3):
        plant(
            root / f"nano{seed}",
            Spec("nano", seed=seed, task=TASK, latency=0.02, train_seconds=3600),
            {NAME: share(0.2, 300, 1)},
            {NAME: share(0.6, 300, seed)},
        )
    columns = {NAME: share(large, 300, 9), "endpoint/cost_per_1000": share(1.0, 300) * cost}
    plant(root / "big", Spec("mini", 0.4, None, task=TASK), columns, model=SERVER)
    (found,) = compare([root], prices=PricesConfig(device_per_hour=1.8)).sets
    return found


@pytest.mark.parametrize(("large", "status"), [(0.3, "shown"), (0.9, "size wins")])
def test_a_server_of_unknown_size_is_a_larger_model(
    tmp_path: Path, large: float, status: str
) -> None:
    found = sweep(tmp_path, large)
    assert found.verdict.status == status
    pair = found.verdict.pair
    assert pair is not None
    assert (pair.question, pair.b.model.family) == (SMALL_LARGE, "endpoint")
    assert "big" in found.verdict.sentence
    assert "size unknown" in found.verdict.sentence
    assert math.isinf(pair.b.size)


def test_the_cost_axis_is_money_of_1000_answers(tmp_path: Path) -> None:
    found = sweep(tmp_path, 0.3)
    money = {p.arm.model.family: p.costs["money_per_1000"] for p in found.points}
    assert money["endpoint"] == pytest.approx(2.5)
    assert money["causal"] == pytest.approx(1000 * 0.02 * 1.8 / 3600)
    assert "money_per_1000" in {front.cost for front in found.fronts}


def test_it_is_paid_back_with_the_money_that_the_server_measured(tmp_path: Path) -> None:
    (paid,) = [entry for entry in sweep(tmp_path, 0.3).paid_back if entry.unit == "currency"]
    assert paid.large_per_answer == pytest.approx(0.0025)
    assert paid.training == pytest.approx(3 * 1.8)
    assert paid.result.answers == pytest.approx(5.4 / (0.0025 - 0.02 * 1.8 / 3600), rel=0.01)


def test_the_whole_report_is_written_with_it(tmp_path: Path) -> None:
    sweep(tmp_path / "runs", 0.3)
    comparison = compare([tmp_path / "runs"], prices=PricesConfig(device_per_hour=1.8))
    paths = write_report(comparison, tmp_path / "out", (), "a sweep")
    page = paths["report"].read_text(encoding="utf-8")
    assert "Money per 1,000 answers" in page
    assert "Infinity" not in paths["results"].read_text(encoding="utf-8")


def test_the_setup_says_how_many_of_a_servers_answers_are_transformers_own(tmp_path: Path) -> None:
    served = {"endpoint/parity": share(1.0, 300), "endpoint/parity_examples": share(1.0, 300) * 64}
    plant(
        tmp_path / "nano", Spec("nano", seed=1, task=TASK),
        {NAME: share(0.2, 300, 1), **served}, {NAME: share(0.6, 300, 1), **served},
    )  # fmt: skip
    plant(tmp_path / "mini", Spec("mini", 0.4, None, task=TASK), {NAME: share(0.3, 300, 9)})
    (found,) = compare([tmp_path]).sets
    facts = {fact.name: fact.lines for part in setup_of(found.test) for fact in part.facts}
    lines = facts["Answered by a server"]
    assert len(lines) == 2, "nano untouched and tuned"
    said = "64 of 64 greedy answers equal to transformers'"
    assert all(line.startswith("nano") and line.endswith(said) for line in lines)
