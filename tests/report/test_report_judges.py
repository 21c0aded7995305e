"""Planted judges: who goes by the order, or by lots, or against people gives no verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.report.factory import Columns, Spec, Task, plant

from sizewise.composition.others import judge_key
from sizewise.errors import ConfigError
from sizewise.report.comparison.compare import SetComparison, compare
from sizewise.report.comparison.decision import gate
from sizewise.report.comparison.pairs import primary_pair
from sizewise.report.page.page import render_page
from sizewise.report.ratings.judges import JudgeAgreement, write_agreements
from sizewise.report.ratings.judging import judges_on

N = 240
TASK = Task(examples=N)
NODE: dict[str, Any] = {
    "_target_": "sizewise.metrics.judge.Judge",
    "models": {"j": {"model": {"name": "j", "path": "embedded:mini"}}},
    "prompt": "{{ prompt }} {{ first }} {{ second }}",
    "against": "reference",
}


def says(kind: str, better: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of the answer first and second, of a judge that knows which answer is ``better``."""
    draw = np.random.default_rng(seed)
    if kind == "always first":
        return np.ones(N), np.zeros(N)
    if kind == "noisy":
        return draw.integers(0, 2, N) * 1.0, draw.integers(0, 2, N) * 1.0
    if kind == "biased":  # in a third of its decisions it takes what stands first
        lazy = draw.uniform(size=(2, N)) < 1 / 3
        return np.where(lazy[0], 1.0, better), np.where(lazy[1], 0.0, better)
    return better, better


def columns(kind: str, rate: float, seed: int) -> Columns:
    better = (np.random.default_rng([seed, 7]).uniform(size=N) < rate) * 1.0
    first, second = says(kind, better, seed)
    return {
        "judge/win": (first + second) / 2,
        "judged/j/first": first,
        "judged/j/second": second,
        "judged/j/unread": np.zeros(N),
    }


def sweep(
    root: Path, kind: str, small: float = 0.7, large: float = 0.3, **node: Any
) -> SetComparison:
    config = {"metric": {"judge": {**NODE}}}
    spec = Spec("nano", task=TASK, extra=config)
    plant(root / "nano", spec, columns(kind, 0.2, 1), columns(kind, small, 2), primary="judge/win")
    other = {"metric": {"judge": {**NODE, **node}}}
    spec = Spec("mini", 0.3, None, task=TASK, extra=other)
    plant(root / "mini", spec, columns(kind, large, 3), primary="judge/win")
    (found,) = compare([root]).sets
    return found


@pytest.mark.parametrize(
    ("small", "large", "status"), [(0.7, 0.3, "shown"), (0.3, 0.7, "size wins")]
)
def test_win_rates_of_a_perfect_judge_decide_like_any_score(
    tmp_path: Path, small: float, large: float, status: str
) -> None:
    found = sweep(tmp_path, "perfect", small, large)
    assert found.verdict.status == status
    assert any("was not compared with people" in warning for warning in found.warnings)
    assert found.decision is not None


def test_position_bias_is_found_and_cancelled(tmp_path: Path) -> None:
    plain, biased = sweep(tmp_path / "a", "perfect"), sweep(tmp_path / "b", "biased")
    (one,), (other,) = judges_on(plain.test), judges_on(biased.test)
    assert one.first == pytest.approx(0.5)
    assert other.first == pytest.approx(2 / 3, abs=0.03)
    assert biased.verdict.status == "shown"
    assert any("leans to the order: 6" in warning for warning in biased.warnings)
    assert not any("leans to the order" in warning for warning in plain.warnings)
    by_label = {arm.label: biased.test.mean(arm) for arm in biased.test.scored}
    for arm in plain.test.scored:
        # In a third of the decisions each order takes its own: half a win on the whole.
        expected = 2 / 3 * plain.test.mean(arm) + 1 / 3 * 0.5
        assert by_label[arm.label] == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("kind", ["always first", "noisy"])
def test_a_judge_whose_order_decides_gives_no_verdict(tmp_path: Path, kind: str) -> None:
    found = sweep(tmp_path, kind)
    assert found.verdict.status == "open"
    assert found.verdict.headline == "Open: the judge is not usable"
    assert "lots give 50 %" in found.verdict.sentence
    assert kind == "noisy" or "the order decides for j" in found.verdict.sentence
    assert found.verdict.pair is None
    assert found.decision is None
    assert any("not usable" in warning for warning in found.warnings)
    pair = primary_pair(found.test)
    assert pair is not None
    with pytest.raises(ConfigError, match="not usable"):
        gate(found.test, pair, 2.0)


def test_a_judge_that_decided_a_handful_of_pairs_is_not_believed_yet(tmp_path: Path) -> None:
    few = {name: np.where(np.arange(N) < 3, values, np.nan) if "first" in name or "second" in name
           else values for name, values in columns("perfect", 0.7, 2).items()}  # fmt: skip
    few["judge/win"] = np.full(N, 0.5)
    spec = Spec("nano", task=TASK, extra={"metric": {"judge": NODE}})
    plant(tmp_path / "nano", spec, few, few, primary="judge/win")
    (found,) = compare([tmp_path]).sets
    assert "too few pairs tell whether to believe j" in found.verdict.sentence


@pytest.mark.parametrize(("kappa", "status"), [(0.39, "open"), (0.41, "shown")])
def test_a_judge_has_to_agree_with_people(tmp_path: Path, kappa: float, status: str) -> None:
    people = JudgeAgreement("j", kappa, 40, 2)
    write_agreements(tmp_path, {judge_key(NODE, "j"): people})
    found = sweep(tmp_path, "perfect")
    assert found.verdict.status == status
    if status == "open":
        assert "agrees too little with people (Cohen's kappa 0.39" in found.verdict.sentence
    assert not any("was not compared" in warning for warning in found.warnings)


def test_models_judged_by_different_panels_are_not_compared(tmp_path: Path) -> None:
    found = sweep(tmp_path, "perfect", prompt="{{ prompt }}? {{ first }} {{ second }}")
    assert found.verdict.status == "open"
    assert "not all judged by the same judges" in found.verdict.sentence


@pytest.mark.parametrize("models", [None, 5, [[]], {"a b": 1}, "x"])
def test_a_record_that_does_not_say_who_judged_gives_no_verdict(
    tmp_path: Path, models: object
) -> None:
    config = {"metric": {"judge": {"_target_": NODE["_target_"], "models": models}}}
    spec = Spec("nano", task=TASK, extra=config)
    plant(tmp_path / "nano", spec, columns("perfect", 0.2, 1), columns("perfect", 0.7, 2),
          primary="judge/win")  # fmt: skip
    (found,) = compare([tmp_path]).sets
    assert found.verdict.status == "open"
    assert "not usable" in found.verdict.headline


def test_the_page_says_why_there_is_no_verdict(tmp_path: Path) -> None:
    sweep(tmp_path, "always first")
    page = render_page(compare([tmp_path]))
    assert "The judge is not usable".lower() in page.lower()
