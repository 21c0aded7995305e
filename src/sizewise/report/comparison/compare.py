"""Many outcomes to one comparison: per test set the table, the pairs and the verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from sizewise import words
from sizewise.config import PricesConfig
from sizewise.record.brackets import TuningRecord
from sizewise.record.outcome import Evaluation
from sizewise.record.predictions import read_predictions
from sizewise.report.comparison.arms import Arm, TestSet
from sizewise.report.comparison.by import left_out
from sizewise.report.comparison.contrast import find_contrast
from sizewise.report.comparison.costs import PaidBack, paid_back, peak_of
from sizewise.report.comparison.decision import EQUIVALENT, NOT_WORSE, Decision, decide
from sizewise.report.comparison.detail import Views, make_views
from sizewise.report.comparison.objections import warnings_of
from sizewise.report.comparison.pair import Pair
from sizewise.report.comparison.pairs import compare_pairs, gains, undecidable
from sizewise.report.comparison.points import Front, Point, fronts, make_points
from sizewise.report.comparison.readings import three_readings, unusable
from sizewise.report.comparison.runs import AnswerCache, Loaded, Problem, Run, load_runs
from sizewise.report.comparison.test_sets import build_test_sets
from sizewise.report.comparison.verdict import NOT_SHOWN, OPEN, SHOWN, Verdict, judge

WHOLE = ("r", "train_examples", "seeds")


@dataclass
class SetComparison:
    """Everything about one test set.

    ``table`` has one row per configuration that was run (see ``arm_rows``), ``everything``
    also the zero-shot scores that came with tuned runs; ``gains`` are keyed by the position of a
    tuned arm in ``test.arms``. ``left_out`` says, where pairs along keys were asked for, which arms
    stand in none. What only pictures and the page need is computed when it is first asked for.
    """

    test: TestSet
    pairs: list[Pair]
    gains: dict[int, Pair]
    table: pd.DataFrame
    everything: pd.DataFrame
    verdict: Verdict
    warnings: list[str]
    prices: PricesConfig | None = None
    seed: int = 0
    margin: float | None = None
    left_out: tuple[str, ...] = ()

    @cached_property
    def decision(self) -> Decision | None:
        """What is good enough at the margin; None where there is nothing to decide between."""
        return decide(self.test, self.pairs, self.margin, self.seed)

    @cached_property
    def points(self) -> list[Point]:
        return make_points(self.test, self.seed, self.prices)

    @cached_property
    def fronts(self) -> list[Front]:
        return fronts(self.test, self.points)

    @cached_property
    def paid_back(self) -> list[PaidBack]:
        """Break-even of the tuned model of the verdict; none unless shown not to be worse."""
        if not _pays(self.verdict, self.decision):
            return []
        contrast = find_contrast(self.test, self.verdict.pair)
        return [] if contrast is None else paid_back(self.test, contrast, self.prices)

    @cached_property
    def views(self) -> Views:
        return make_views(self.test, self.points, self.verdict, self.seed)


def _pays(verdict: Verdict, decision: Decision | None) -> bool:
    """Whether a break-even may be stated: quality is shown to be better, or not to be worse.

    Not where anything limits that, nor beside a baseline that is not beaten.
    """
    pair = verdict.pair
    if pair is None or verdict.also or (verdict.baseline and not verdict.baseline.beaten):
        return False
    if verdict.status != NOT_SHOWN:
        return verdict.status == SHOWN
    relations = decision.relations if decision is not None else []
    return any(r.pair is pair and r.status in (EQUIVALENT, NOT_WORSE) for r in relations)


@dataclass
class Comparison:
    """Many outcomes: what was read, what could not be, and one comparison per test set.

    ``by`` are the configuration keys in which pairs differ, where that was asked for; ``tuning`` is
    what the sweeps tried on the way.
    """

    runs: tuple[Run, ...]
    problems: list[Problem]
    sets: list[SetComparison]
    by: tuple[str, ...] = ()
    tuning: tuple[TuningRecord, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The verdict on the largest test set."""
        if self.sets:
            return self.sets[0].verdict
        if not self.runs:
            nothing = "No run has finished, so there is nothing to say."
            return Verdict(OPEN, "No finished run", nothing)
        sentence = (
            f"{words.plural(len(self.runs), 'run')} finished, but none was scored on the test "
            "split, so there is nothing to compare. Score each with `evaluate.py run=DIR`."
        )
        return Verdict(OPEN, "Nothing scored", sentence)

    @property
    def table(self) -> pd.DataFrame:
        """The configurations of all test sets, one set below the other; never compared across."""
        if not self.sets:
            return pd.DataFrame()
        # Where some rows have none, whole numbers would become 8.0.
        return pd.concat([s.everything for s in self.sets]).astype(dict.fromkeys(WHOLE, "Int64"))

    @property
    def runs_table(self) -> pd.DataFrame:
        return run_rows(self.runs, self.scores_of)

    @cached_property
    def _scores(self) -> dict[int, tuple[str, Mapping[str, float]]]:
        arms = [arm for compared in self.sets for arm in compared.test.arms]
        return {
            id(m.evaluation): (arm.primary, m.scores)
            for arm in arms
            for m in (*arm.members, *arm.copies)
        }

    def scores_of(self, evaluation: Evaluation) -> Mapping[str, float]:
        """Aggregates of an evaluation of the runs, on the examples that its test set compares."""
        return self._scores.get(id(evaluation), ("", evaluation.scores))[1]

    def score_of(self, evaluation: Evaluation | None) -> float | None:
        """The score that counts in the test set of an evaluation; None without one."""
        if evaluation is None or id(evaluation) not in self._scores:
            return None
        name, scores = self._scores[id(evaluation)]
        return scores.get(name)


def compare(
    paths: Sequence[Path],
    by: Sequence[str] = (),
    prices: PricesConfig | None = None,
    seed: int = 0,
    margin: float | None = None,
) -> Comparison:
    """Compare all finished runs at or below ``paths``; ConfigError if ``by`` names no key of them.

    ``by``: compare pairs that differ in these configuration keys only, instead of the pairs of the
    question. The same ``seed`` gives the same figures. ``margin``: see ``decision.decide``.
    """
    return compare_loaded(load_runs(paths), by, prices, seed, margin)


def compare_loaded(
    loaded: Loaded,
    by: Sequence[str] = (),
    prices: PricesConfig | None = None,
    seed: int = 0,
    margin: float | None = None,
) -> Comparison:
    """``compare`` of runs that were read already."""
    tests = build_test_sets(loaded.runs, AnswerCache())
    sets = [_compare_set(test, by, prices, seed, margin) for test in tests]
    problems = list(loaded.problems)
    for compared in sets:
        problems += compared.test.problems
    return Comparison(loaded.runs, problems, sets, tuple(by), loaded.tuning)


def _compare_set(
    test: TestSet, by: Sequence[str], prices: PricesConfig | None, seed: int, margin: float | None
) -> SetComparison:
    pairs = compare_pairs(test, by, seed)
    verdict = judge(test, pairs, by, seed)
    gained = gains(test, seed)
    return SetComparison(
        test=test,
        pairs=pairs,
        gains=gained,
        table=arm_rows(test, gained),
        everything=arm_rows(test, gained, own=False),
        verdict=verdict,
        warnings=[*warnings_of(test, pairs), *undecidable(pairs)],
        prices=prices,
        seed=seed,
        margin=margin,
        left_out=tuple(left_out(test, by, pairs)),
    )


def arm_rows(test: TestSet, gains: Mapping[int, Pair], own: bool = True) -> pd.DataFrame:
    """One row per configuration, best first.

    Gains are improvements of tuned arms over their own base (``gains``, by position), with the 95 %
    interval paired on the test examples. ``own`` leaves out zero-shot scores that only came with
    tuned runs.
    """
    rows = [_row(test, arm, gains.get(place)) for place, arm in enumerate(test.arms)]
    shown = [row for row, arm in zip(rows, test.arms, strict=True) if arm.own or not own]
    frame = pd.DataFrame(shown, columns=list(rows[0]))
    order = frame["score"] * test.sign
    return frame.loc[order.sort_values(ascending=False, na_position="last", kind="stable").index]


def _row(test: TestSet, arm: Arm, gain: Pair | None) -> dict[str, Any]:
    model, outcome = arm.model, arm.first.run.outcome
    base = test.zero_shot_of(arm)
    score = arm.score(test.primary)
    zero_shot = base.score(test.primary) if base is not None else None
    return {
        "label": arm.label,
        "kind": arm.kind,
        "dataset": test.dataset,
        "metric": test.primary,
        "model": model.name,
        "params": arm.params,
        "trainable": model.params_trainable if arm.fitted else 0,
        "lora": model.lora_method if arm.has_seeds else "none",
        "r": model.lora_r if arm.has_seeds else None,
        "quantization": model.quantization,
        "train_examples": arm.max_train or None,
        "memory_bytes": model.memory_bytes or None,
        "eval_peak_bytes": peak_of(arm),
        "adapter_bytes": model.adapter_bytes if arm.has_seeds else 0,
        "train_seconds": arm.train_seconds,
        "latency_seconds": arm.latency,
        "energy_joules": arm.energy_joules,
        "seeds": len(arm.members) if arm.has_seeds else None,
        "zero_shot": zero_shot,
        "tuned": score if arm.fitted else None,
        "score": score,
        **{f"score_{n}": arm.score(name) for n, name in _readings(test).items()},
        "gain": gain.gain if gain else None,
        "gain_low": gain.low if gain else None,
        "gain_high": gain.high if gain else None,
        "p_value": gain.result.p_value if gain else None,
        "unparsed": arm.unparsed,
        "unusable": unusable(test, arm),
        "examples": test.compared,
        "fingerprint": test.fingerprint,
        "code_commit": (outcome.provenance.get("code") or {}).get("commit"),
    }


def _readings(test: TestSet) -> dict[str, str]:
    return {n.lower().replace(" ", "_"): name for n, name in three_readings(test).items()}


def run_rows(
    runs: Sequence[Run], scores: Callable[[Evaluation], Mapping[str, float]]
) -> pd.DataFrame:
    rows = []
    for run in runs:
        outcome = run.outcome
        row: dict[str, Any] = {
            "run_id": outcome.run_id,
            "directory": run.directory.name,
            "model": outcome.model.name,
            "params": outcome.model.params_total,
            "lora": outcome.model.lora_method,
            "r": outcome.model.lora_r,
            "quantization": outcome.model.quantization,
            "dataset": outcome.data.name,
            "train_examples": outcome.data.sizes.get("train"),
            "seed": outcome.seed,
            "memory_bytes": outcome.model.memory_bytes or None,
            "train_seconds": outcome.cost.train_seconds,
            "eval_seconds": outcome.cost.eval_seconds,
            "val_loss": outcome.validation.get("val_loss"),
        }
        for kind, evaluations in (("zero_shot", outcome.base), ("tuned", outcome.tuned or {})):
            for name, evaluation in evaluations.items():
                row |= {f"{kind}@{name}/{k}": v for k, v in scores(evaluation).items()}
        rows.append(row)
    return pd.DataFrame(rows)


def answer_rows(runs: Sequence[Run]) -> pd.DataFrame:
    """One row per stored answer, its scores by their names.

    ``side`` is ``zero_shot`` or ``tuned``. EvaluationError for a damaged file of predictions.
    """
    rows = []
    for run in runs:
        outcome = run.outcome
        facts = {"run_id": outcome.run_id, "model": outcome.model.name, "seed": outcome.seed}
        for side, evaluations in (("zero_shot", outcome.base), ("tuned", outcome.tuned or {})):
            for dataset, evaluation in evaluations.items():
                for answer in read_predictions(run.directory / evaluation.predictions.path):
                    row = {**facts, "side": side, "dataset": dataset, **answer.to_json()}
                    rows.append(row | row.pop("scores"))
    return pd.DataFrame(rows)
