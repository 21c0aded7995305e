"""Simulated whole sweeps with planted differences: what their reports claim, and how often wrongly.

A sweep has two small models (two ranks each, one also with another method), each with three seeds,
their untouched bases and a larger untouched model. Scores are those of ``scores.draw_side``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from benchmarks.simulation.scores import Scenario, draw_side

from sizewise.record.outcome import CostFacts, DataFacts, Evaluation, FileRef, ModelFacts, Outcome
from sizewise.report.comparison.arms import TUNED, ZERO_SHOT, Arm, Member, TestSet
from sizewise.report.comparison.decision import decide
from sizewise.report.comparison.pair import Pair
from sizewise.report.comparison.pairs import (
    METHODS,
    MODELS,
    OWN_BASE,
    RANKS,
    SMALL_LARGE,
    compare_pairs,
)
from sizewise.report.comparison.runs import Run
from sizewise.statistics.arrays import FloatArray

PRIMARY = "label/score"
PARAMS = {"nano": 300_000, "micro": 1_000_000, "mini": 4_000_000}
TUNED_ARMS = (
    ("nano", "lora", 4), ("nano", "lora", 16), ("nano", "dora", 16),
    ("micro", "lora", 4), ("micro", "lora", 16),
)  # fmt: skip
UNTOUCHED = ("nano", "micro", "mini")


@dataclass(frozen=True)
class Planted:
    """What is true. ``shifts`` are added to arms by name, such as ``mini`` or ``nano lora 16``."""

    name: str
    scenario: Scenario
    shifts: Mapping[str, float] = field(default_factory=dict)

    def shift(self, name: str) -> float:
        return self.shifts.get(name, 0.0)


@dataclass
class Claims:
    """Shares of the sweeps that claim something.

    `wrong`: by family, any claim of a difference that is none or of the wrong sign. `found`: a true
    claim about the primary pair. `near_wrong`: any configuration that is worse than the best
    by the margin or more is called good enough. `not_worse_wrong`: so of any pair.
    """

    planted: Planted
    sweeps: int
    wrong: dict[str, float]
    found: float
    near_wrong: float
    not_worse_wrong: float


def draw_sweep(planted: Planted, rng: np.random.Generator) -> TestSet:
    """Draw the scores of all arms; tuned ones have `scenario.seeds_a` seeds."""
    scenario = planted.scenario
    shared_N = rng.normal(0.0, 1.0, scenario.examples)
    arms = []
    for model, method, rank in TUNED_ARMS:
        shift = planted.shift(f"{model} {method} {rank}")
        scores, _ = draw_side(scenario, scenario.seeds_a, shift, shared_N, rng)
        arms.append(arm_of(TUNED, model, method, rank, scores))
    for model in UNTOUCHED:
        scores, _ = draw_side(scenario, 0, planted.shift(model), shared_N, rng)
        arms.append(arm_of(ZERO_SHOT, model, "none", None, scores[None, :]))
    names = tuple(f"e{i}" for i in range(scenario.examples))
    test = TestSet("task", "f", PRIMARY, "max", arms, ids=names, groups=names)
    test.name()
    return test


def arm_of(kind: str, model: str, method: str, rank: int | None, scores_SN: FloatArray) -> Arm:
    """An arm as it is read from disk, with the scores that were drawn for it."""
    config = {
        "model": {"name": model},
        "dataset": {"name": "task"},
        "lora": {"method": method, "r": rank},
    }
    facts = ModelFacts(
        name=model, path=model, revision=None, family="causal", model_type="qwen3",
        params_total=PARAMS[model], params_trainable=0, params_base=PARAMS[model],
        base_bytes=PARAMS[model], memory_bytes=PARAMS[model], adapter_bytes=0, dtype="float32",
        quantization="none", lora_method=method, lora_r=rank, lora_alpha=None, lora_scale=None,
        chat_template="t",
    )  # fmt: skip
    evaluation = Evaluation("task", "test", "f", scores_SN.shape[1], {}, FileRef("p", "0", 0))
    members = []
    for seed in range(scores_SN.shape[0]):
        outcome = Outcome(
            run_id=f"{model}{method}{rank}{seed}", identity=f"{model}{method}{rank}{seed}",
            config=config, seed=seed, model=facts,
            data=DataFacts("task", {}, {}, {}, {}, "p"), cost=CostFacts(), base={}, tuned=None,
            primary=PRIMARY, direction="max", objective=None, validation={}, provenance={},
        )  # fmt: skip
        members.append(Member(Run(Path(), outcome), evaluation, None))
    return Arm(kind, config, members, own=True, scores=scores_SN)


def name_of(arm: Arm) -> str:
    """Name of an arm in `Planted.shifts`."""
    model = arm.model
    return f"{model.name} {model.lora_method} {model.lora_r}" if arm.tuned else model.name


def measure_claims(
    planted: Planted,
    sweeps: int = 500,
    *,
    margin: float | None,
    n_resamples: int = 500,
    seed: int = 0,
) -> Claims:
    """Simulate sweeps, compare their pairs and decide at a margin in units of the score.

    Without a margin nothing is decided, and nothing known of what is near or not worse (NaN).
    """
    rng = np.random.default_rng(seed)
    wrong: Counter[str] = Counter()
    found = near = not_worse = 0
    for number in range(sweeps):
        test = draw_sweep(planted, rng)
        pairs = compare_pairs(test, seed=number, resamples=n_resamples)
        false = {pair.question for pair in pairs if _is_wrong(planted, pair)}
        wrong.update(false)
        wrong["any"] += bool(false)
        primary = next(pair for pair in pairs if pair.primary)
        found += (primary.wins or primary.loses) and not _is_wrong(planted, primary)
        if margin is None:
            continue
        decision = decide(test, pairs, margin, seed=number, n_resamples=50)
        if decision is None:
            continue
        best = max(planted.shift(name_of(arm)) for arm in test.arms)
        near += any(
            c.near and best - planted.shift(name_of(c.arm)) >= margin - 1e-12
            for c in decision.choices
        )
        not_worse += any(
            r.p_not_worse <= 0.05 and _difference(planted, r.pair) <= -margin + 1e-12
            for r in decision.relations
        )
    shares = {q: wrong[q] / sweeps for q in (*FAMILIES, "any")}
    decided = sweeps if margin is not None else math.nan
    return Claims(planted, sweeps, shares, found / sweeps, near / decided, not_worse / decided)


def primary_of(scenario: Scenario, seed: int = 0) -> tuple[str, float]:
    """Name of the small arm of the primary pair, and the median effect it states as detectable."""
    rng = np.random.default_rng([seed, 7])
    found = []
    for number in range(100):
        test = draw_sweep(Planted("pilot", scenario), rng)
        pairs = compare_pairs(test, seed=number, resamples=200)
        primary = next(pair for pair in pairs if pair.primary)
        found.append(primary.result.minimum_detectable_effect)
    return name_of(primary.a), float(np.median(found))


FAMILIES = (SMALL_LARGE, OWN_BASE, MODELS, METHODS, RANKS)


def _difference(planted: Planted, pair: Pair) -> float:
    return planted.shift(name_of(pair.a)) - planted.shift(name_of(pair.b))


def _is_wrong(planted: Planted, pair: Pair) -> bool:
    true = _difference(planted, pair)
    return (pair.wins and true <= 0.0) or (pair.loses and true >= 0.0)
