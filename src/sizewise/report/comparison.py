"""Many outcomes to one comparison: per test set the table, the pairs and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from sizewise.report.candidates import TestSet, build_test_sets
from sizewise.report.load import AnswerCache, Loaded, Problem, Run, load_runs
from sizewise.report.pairs import Pair, compare_pairs, gains
from sizewise.report.points import Front, Point, fronts, make_points
from sizewise.report.table import candidate_rows, run_rows
from sizewise.report.verdict import OPEN, Verdict, judge


@dataclass
class SetComparison:
    """Everything about one test set.

    ``table`` has one row per configuration that was run (see ``candidate_rows``), ``everything``
    also the zero-shot scores that came with tuned runs; ``gains`` are keyed by the position of a
    tuned candidate in ``test.candidates``.
    """

    test: TestSet
    pairs: list[Pair]
    gains: dict[int, Pair]
    table: pd.DataFrame
    everything: pd.DataFrame
    verdict: Verdict
    points: list[Point]
    fronts: list[Front]
    warnings: list[str] = field(default_factory=list)


@dataclass
class Comparison:
    """Many outcomes: what was read, what could not be, and one comparison per test set."""

    runs: tuple[Run, ...]
    problems: list[Problem]
    sets: list[SetComparison]

    @property
    def verdict(self) -> Verdict:
        """The verdict on the largest test set."""
        nothing = "No run has finished, so there is nothing to say."
        return self.sets[0].verdict if self.sets else Verdict(OPEN, "No finished run", nothing)

    @property
    def table(self) -> pd.DataFrame:
        """The tables of all test sets, one below the other; never compared across."""
        return pd.concat([s.table for s in self.sets]) if self.sets else pd.DataFrame()

    @property
    def runs_table(self) -> pd.DataFrame:
        """One row per run."""
        return run_rows(self.runs)


def compare(paths: Sequence[Path], by: Sequence[str] = (), seed: int = 0) -> Comparison:
    """Compare all finished runs at or below ``paths``.

    Args:
        paths: run and sweep directories, of one or many sweeps and machines.
        by: compare pairs that differ in these configuration keys only, instead of the pairs of
            the question.
        seed: of the resampling; the same seed gives the same figures.

    Raises:
        OutcomeError: a path is no directory.
        ConfigError: ``by`` names no key of the runs.
    """
    return compare_loaded(load_runs(paths), by, seed)


def compare_loaded(loaded: Loaded, by: Sequence[str] = (), seed: int = 0) -> Comparison:
    """``compare`` of runs that were read already."""
    sets = [_compare_set(test, by, seed) for test in build_test_sets(loaded.runs, AnswerCache())]
    problems = list(loaded.problems)
    for compared in sets:
        problems += compared.test.problems
    return Comparison(loaded.runs, problems, sets)


def _compare_set(test: TestSet, by: Sequence[str], seed: int) -> SetComparison:
    pairs = compare_pairs(test, by, seed)
    gained, points = gains(test, seed), make_points(test, seed)
    return SetComparison(
        test=test,
        pairs=pairs,
        gains=gained,
        table=candidate_rows(test, gained),
        everything=candidate_rows(test, gained, own=False),
        verdict=judge(test, pairs),
        points=points,
        fronts=fronts(test, points),
    )
