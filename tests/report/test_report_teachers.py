"""Arms that learnt from a teacher: compared with gold, and paid back with what the teacher cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.report.factory import Spec, Task, plant, share

from sizewise.config import PricesConfig
from sizewise.record.outcome import read_outcome, write_outcome
from sizewise.report.comparison.compare import SetComparison, compare
from sizewise.report.comparison.pairs import TEACHERS

TASK = Task(examples=300)
NAME = "icd10/exact_match"
TEACHER = {"model": {"name": "mini", "path": "embedded:mini"}, "quantization": {"method": "none"}}
FACTS: dict[str, Any] = {"key": "k", "model": "mini", "seconds": 900.0, "money": None}


def sweep(root: Path, facts: dict[str, Any]) -> SetComparison:
    """Gold and teacher with three seeds each, and the untouched teacher."""
    for source, rate in (("gold", 0.6), ("teacher", 0.7)):
        for seed in (1, 2, 3):
            dataset: dict[str, Any] = {"name": TASK.name, "label": "code"}
            if source == "teacher":
                dataset |= {"teacher": TEACHER, "answers_from": source, "teaching": {"samples": 1}}
            folder = plant(
                root / f"{source}{seed}",
                Spec("nano", seed=seed, task=TASK, latency=0.01, train_seconds=100,
                     extra={"dataset": dataset}),
                {NAME: share(0.2, 300, 1)},
                {NAME: share(rate, 300, seed)},
            )  # fmt: skip
            outcome = read_outcome(folder)
            if source == "teacher":
                report = {**outcome.data.report, "teacher": facts}
                write_outcome(replace(outcome, data=replace(outcome.data, report=report)), folder)
    plant(root / "mini", Spec("mini", 0.3, None, task=TASK, latency=0.02), {NAME: share(0.3, 300)})
    (found,) = compare([root], prices=PricesConfig(3.6, 0.001)).sets
    return found


def test_the_gain_of_a_teacher_over_gold_has_an_interval(tmp_path: Path) -> None:
    found = sweep(tmp_path, FACTS)
    (pair,) = [pair for pair in found.pairs if pair.question == TEACHERS]
    assert ("answers=teacher" in pair.a.label, "answers=gold" in pair.b.label) == (True, True)
    assert pair.gain == pytest.approx(0.1)
    assert pair.low < 0.1 < pair.high


def test_what_a_teacher_cost_is_paid_back_once(tmp_path: Path) -> None:
    paid = {entry.unit: entry for entry in sweep(tmp_path / "a", FACTS).paid_back}
    seconds = paid["device seconds"]
    assert seconds.training == pytest.approx(6 * 100 + 900)
    assert seconds.result.answers == pytest.approx(1500 / (0.02 - 0.01), rel=0.01)
    served = {**FACTS, "seconds": None, "money": 2.5}
    paid = {entry.unit: entry for entry in sweep(tmp_path / "b", served).paid_back}
    assert paid["device seconds"].training == pytest.approx(600)
    assert paid["currency"].training == pytest.approx(600 * 3.6 / 3600 + 2.5)
