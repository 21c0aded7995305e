"""Simulated sweeps: how often the corrected tests find something where nothing is, or is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from benchmarks.simulation.scores import Scenario, draw_side, groups_of

from sizewise.statistics.comparison import PairedComparison, PairedScores, compare_paired_many
from sizewise.statistics.paired import holm


@dataclass(frozen=True)
class FamilyError:
    """Share of sweeps without any true difference in which at least one pair was significant.

    `corrected` after Holm, `uncorrected` without; `error` is the Monte Carlo error of the former;
    `test` names the test that was made.
    """

    scenario: Scenario
    comparisons: int
    sweeps: int
    corrected: float
    uncorrected: float
    error: float
    test: str


@dataclass(frozen=True)
class Power:
    """Share of significant pairs whose true difference is the stated detectable one."""

    scenario: Scenario
    nominal: float
    measured: float
    error: float


def simulate_sweep(
    scenario: Scenario,
    comparisons: int,
    rng: np.random.Generator,
    *,
    n_resamples: int = 1_000,
    seed: int = 0,
) -> list[PairedComparison]:
    """Compare `comparisons` drawn runs (side A) with one drawn baseline (side B)."""
    shared_N = rng.normal(0.0, 1.0, scenario.examples)
    baseline, _ = draw_side(scenario, scenario.seeds_b, 0.0, shared_N, rng)
    groups = groups_of(scenario)
    pairs = []
    for _ in range(comparisons):
        run, _ = draw_side(scenario, scenario.seeds_a, scenario.difference, shared_N, rng)
        pairs.append(PairedScores(run, baseline, groups))
    return compare_paired_many(
        pairs, seed, n_resamples=n_resamples, minimum_seeds=scenario.minimum_seeds
    )


def measure_family_error(
    scenario: Scenario,
    sweeps: int = 500,
    comparisons: int = 10,
    *,
    alpha: float = 0.05,
    n_resamples: int = 1_000,
    seed: int = 0,
) -> FamilyError:
    """Simulate sweeps in which every run is as good as the baseline and count false alarms."""
    null = replace(scenario, difference=0.0)
    rng = np.random.default_rng(seed)
    corrected, uncorrected, test = 0, 0, ""
    for number in range(sweeps):
        found = simulate_sweep(null, comparisons, rng, n_resamples=n_resamples, seed=number)
        p_values = [comparison.p_value for comparison in found]
        corrected += bool(holm(p_values, alpha).rejected.any())
        uncorrected += min(p_values) <= alpha
        test = found[0].test
    share = corrected / sweeps
    error = float(np.sqrt(share * (1.0 - share) / sweeps))
    return FamilyError(null, comparisons, sweeps, share, uncorrected / sweeps, error, test)


def measure_power(
    scenario: Scenario,
    replicates: int = 500,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    n_resamples: int = 1_000,
    seed: int = 0,
) -> Power:
    """Plant the detectable difference (median of what 50 pilot data sets state) and find it."""
    rng = np.random.default_rng(seed)
    null = replace(scenario, difference=0.0)
    pilots = [simulate_sweep(null, 1, rng, n_resamples=1, seed=0)[0] for _ in range(50)]
    detectable = float(np.median([pilot.minimum_detectable_effect for pilot in pilots]))
    planted = replace(scenario, difference=detectable)
    found = 0
    for number in range(replicates):
        made = simulate_sweep(planted, 1, rng, n_resamples=n_resamples, seed=number)
        found += made[0].p_value <= alpha
    share = found / replicates
    return Power(planted, power, share, float(np.sqrt(share * (1.0 - share) / replicates)))
