"""Decisions at a margin: relations of pairs, the smallest that is good enough, the gate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from sizewise.commands.main import app
from sizewise.record.outcome import read_outcome, write_outcome
from sizewise.report.comparison.compare import SetComparison, compare
from sizewise.report.comparison.decision import BETTER, EQUIVALENT, NOT_WORSE, OPEN, WORSE, decide
from sizewise.report.comparison.pairs import SMALL_LARGE
from sizewise.report.page.prose import plain_answer
from sizewise.report.page.results import results_record

from .factory import Spec, Task, make_sweep

LARGE_TASK = Task(examples=800)


def planted(root: Path, small: float, large: float, task: Task = LARGE_TASK) -> SetComparison:
    """A small tuned model with three seeds and a larger zero-shot one, at these shares right."""
    specs = [Spec("nano", 0.1, small, seed=s, task=task) for s in (1, 2, 3)]
    make_sweep(root, [*specs, Spec("mini", large, None, task=task)])
    (only,) = compare([root]).sets
    return only


@pytest.mark.parametrize(
    ("small", "large", "margin", "expected"),
    [
        (0.60, 0.40, 2.0, BETTER),
        (0.50, 0.50, 20.0, EQUIVALENT),
        (0.50, 0.50, 0.5, OPEN),
        (0.30, 0.60, 2.0, WORSE),
    ],
)
def test_every_pair_is_related_at_the_margin(
    tmp_path: Path, small: float, large: float, margin: float, expected: str
) -> None:
    found = planted(tmp_path, small, large)
    decision = decide(found.test, found.pairs, margin)
    assert decision is not None
    (relation,) = [r for r in decision.relations if r.pair.question == SMALL_LARGE]
    assert relation.status == expected
    assert relation.pair.primary


def test_not_worse_is_less_than_equivalent(tmp_path: Path) -> None:
    """A gain that may be larger than the margin, and is not shown to be a gain."""
    found = planted(tmp_path, 0.515, 0.50, Task(examples=400))
    statuses = {}
    for margin in np.arange(0.2, 20.0):
        decision = decide(found.test, found.pairs, float(margin))
        assert decision is not None
        (relation,) = [r for r in decision.relations if r.pair.primary]
        statuses[float(margin)] = relation.status
        assert relation.p_not_worse <= relation.p_equivalent
    order = list(statuses.values())
    assert order == sorted(order, key=[OPEN, NOT_WORSE, EQUIVALENT].index)
    assert set(order) == {OPEN, NOT_WORSE, EQUIVALENT}


def test_the_smallest_and_the_cheapest_that_are_good_enough_are_named(tmp_path: Path) -> None:
    """The cheap one is larger: it answers faster. A bad small one and a slow good one lose."""
    rates = {"nano": (0.3, 0.01), "micro": (0.61, 0.5), "mini": (0.62, 0.02)}
    specs = [
        Spec(model, 0.1, rate, seed=s, task=LARGE_TASK, latency=latency)
        for model, (rate, latency) in rates.items()
        for s in (1, 2, 3)
    ]
    make_sweep(tmp_path, specs)
    (found,) = compare([tmp_path], margin=15.0).sets
    decision = found.decision
    assert decision is not None
    assert decision.smallest is not None
    assert decision.smallest.arm.model.name == "micro"
    assert decision.cheapest is not None
    assert decision.cheapest.arm.model.name == "mini"
    assert {c.arm.model.name for c in decision.choices if c.near} == {"micro", "mini"}
    assert sum(c.share_best for c in decision.choices) == pytest.approx(1.0)
    text = " ".join(decision.sentences)
    assert "15.0 points" in text
    assert "The smallest is micro" in text
    record = results_record(compare([tmp_path], margin=15.0))["test_sets"][0]
    assert record["decision"]["smallest"] == decision.smallest.arm.label
    assert record["margin"] == 15.0


def test_where_one_alone_is_good_enough_it_is_named(tmp_path: Path) -> None:
    found = planted(tmp_path, 0.9, 0.3, LARGE_TASK)
    assert found.decision is not None
    assert found.decision.sentences[0].startswith("Of 3 configurations only nano LoRA r=8 (")
    assert "is shown not to be worse than the best by 2.0 points" in found.decision.sentences[0]


def test_nothing_is_recommended_where_nothing_is_shown(tmp_path: Path) -> None:
    found = planted(tmp_path, 0.5, 0.5, Task(examples=40))
    assert found.decision is not None
    assert found.decision.smallest is None
    said = "It is not shown which configurations are within 2.0 points of the best."
    assert found.decision.sentences[0] == said
    assert "It is not shown which are within 2.0 points of the best of all." in plain_answer(found)


def test_scores_without_points_need_a_margin_of_their_own(tmp_path: Path) -> None:
    make_sweep(tmp_path, [Spec("nano", 0.6, 0.2), Spec("mini", 0.5, None)])
    for directory in tmp_path.iterdir():
        write_outcome(replace(read_outcome(directory), direction="min"), directory)
    (found,) = compare([tmp_path]).sets
    assert found.decision is None
    decision = decide(found.test, found.pairs, 0.1)
    assert decision is not None
    assert decision.margin == 0.1
    assert decision.smallest is not None
    assert decision.smallest.arm.tuned


@pytest.mark.parametrize(
    ("small", "large", "examples", "code", "words"),
    [
        (0.6, 0.4, 400, 0, "PASS: nano LoRA r=8 is better than mini zero-shot"),
        (0.5, 0.5, 3000, 0, "PASS: nano LoRA r=8 is not worse by 5.0 points or more than mini"),
        (0.3, 0.6, 400, 1, "FAIL: nano LoRA r=8 is worse than mini zero-shot"),
        (0.5, 0.5, 60, 2, "OPEN: nano LoRA r=8 is not shown to be worse, nor to be within"),
    ],
)
def test_gate_exits_by_what_is_shown(
    tmp_path: Path, small: float, large: float, examples: int, code: int, words: str
) -> None:
    task = Task(examples=examples)
    specs = [Spec("nano", 0.1, small, seed=s, task=task) for s in (1, 2, 3)]
    make_sweep(tmp_path, [*specs, Spec("mini", large, None, task=task)])
    found = CliRunner().invoke(app, ["gate", str(tmp_path), "--margin", "5"])
    assert found.exit_code == code
    assert found.stdout.startswith(words)
    assert found.stdout.count("\n") == 1


def test_gate_takes_any_two_configurations(tmp_path: Path) -> None:
    make_sweep(tmp_path, [Spec("nano", 0.1, 0.3), Spec("mini", 0.6, None)])
    turned = ["--a", "mini zero-shot", "--b", "nano LoRA r=8"]
    assert CliRunner().invoke(app, ["gate", str(tmp_path), *turned]).exit_code == 0


@pytest.mark.parametrize("options", [[], ["--a", "nano"], ["--a", "x", "--b", "y"]])
def test_gate_that_cannot_be_answered_is_no_verdict(tmp_path: Path, options: list[str]) -> None:
    make_sweep(tmp_path, [Spec("nano", 0.1, 0.3)])
    assert CliRunner().invoke(app, ["gate", str(tmp_path), *options]).exit_code == 3
