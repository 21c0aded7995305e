"""Simulated scores with a known true difference, to measure what intervals and tests do.

Score of seed s of a side on example i (latent, plus a shared part that both sides have):
shift + seed_s + group_g(i) + example_i + residual_si. Binary scores are drawn with the logistic
of the latent value as their probability.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import special

from sizewise.statistics.arrays import FloatArray, IntArray
from sizewise.statistics.bootstrap import difference_intervals
from sizewise.statistics.sides import MINIMUM_SEEDS, Sides, sides_of


@dataclass(frozen=True)
class Scenario:
    """One simulated design; standard deviations are of one side's effects.

    `seeds_b=0`: B is one deterministic model. `conditional`: the truth is the difference of the
    very models that were drawn (seeds fixed) instead of that of an average seed. `groups=0`:
    independent examples; otherwise that many groups of unequal size.
    """

    name: str
    examples: int = 200
    seeds_a: int = 1
    seeds_b: int = 0
    difference: float = 0.2
    sd_seed: float = 0.0
    sd_example: float = 1.0
    sd_residual: float = 0.5
    groups: int = 0
    sd_group: float = 0.0
    binary: bool = False
    conditional: bool = False
    minimum_seeds: int = MINIMUM_SEEDS

    @property
    def fewest(self) -> int:
        """Seeds from which they vary: none do where the truth is that of the drawn ones."""
        return 99 if self.conditional else self.minimum_seeds


@dataclass(frozen=True)
class Coverage:
    """Share of simulated intervals that held the truth, its Monte Carlo error, mean width."""

    scenario: Scenario
    coverage: float
    error: float
    width: float


def group_index(examples: int, groups: int) -> IntArray:
    """Group of each example: sizes rise linearly, the largest about three times the smallest."""
    shares = np.linspace(1.0, 3.0, groups).cumsum()
    return np.searchsorted(shares / shares[-1], (np.arange(examples) + 0.5) / examples)


def measure_coverage(
    scenario: Scenario, replicates: int, *, n_resamples: int = 2_000, seed: int = 0
) -> Coverage:
    """Simulate `replicates` data sets and count how often the 95 % interval holds the truth.

    Data sets of one batch share their resamples, batches do not.
    """
    hits, widths = [], []
    for batch, (pairs, truths) in enumerate(_batches(scenario, replicates, seed)):
        intervals = difference_intervals(pairs, n_resamples=n_resamples, seed=seed + 1 + batch)
        for interval, truth in zip(intervals, truths, strict=True):
            hits.append(interval.low <= truth <= interval.high)
            widths.append(interval.high - interval.low)
    share = float(np.mean(hits))
    error = float(np.sqrt(share * (1.0 - share) / len(hits)))
    return Coverage(scenario, share, error, float(np.mean(widths)))


def _batches(
    scenario: Scenario, replicates: int, seed: int, size: int = 100
) -> Iterator[tuple[list[Sides], list[float]]]:
    rng = np.random.default_rng(seed)
    for start in range(0, replicates, size):
        drawn = [draw_pair(scenario, rng) for _ in range(min(size, replicates - start))]
        yield [sides for sides, _ in drawn], [truth for _, truth in drawn]


def draw_pair(scenario: Scenario, rng: np.random.Generator) -> tuple[Sides, float]:
    """Draw the scores of both sides and return them with the true difference."""
    index = groups_of(scenario)
    shared_N = rng.normal(0.0, 1.0, scenario.examples)
    a, truth_a = draw_side(scenario, scenario.seeds_a, scenario.difference, shared_N, rng)
    b, truth_b = draw_side(scenario, scenario.seeds_b, 0.0, shared_N, rng)
    sides = sides_of(a, b, index, minimum_seeds=scenario.fewest)
    return sides, truth_a - truth_b


def groups_of(scenario: Scenario) -> IntArray | None:
    """Group of each example, [N]; None for independent examples."""
    return group_index(scenario.examples, scenario.groups) if scenario.groups else None


def draw_side(
    s: Scenario, n_seeds: int, shift: float, shared_N: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray, float]:
    """Return scores, [S, N] or [N] without seeds, and their true mean."""
    index = groups_of(s)
    rows = max(n_seeds, 1)
    seeds_S = rng.normal(0.0, s.sd_seed if n_seeds else 0.0, rows)
    latent = shift + seeds_S[:, None] + shared_N + rng.normal(0.0, s.sd_example, s.examples)
    latent = latent + rng.normal(0.0, s.sd_residual, (rows, s.examples))
    if index is not None:
        latent = latent + rng.normal(0.0, s.sd_group, s.groups)[index]
    spread = 1.0 + s.sd_example**2 + s.sd_residual**2 + s.sd_group**2
    fixed = s.conditional or n_seeds == 0
    centres = shift + seeds_S if fixed else np.array([shift])
    if not fixed:
        spread += s.sd_seed**2
    truth = _mean_logistic(centres, spread) if s.binary else float(centres.mean())
    if s.binary:
        latent = (rng.random(latent.shape) < special.expit(latent)).astype(np.float64)
    return (latent if n_seeds else latent[0]), truth


@cache
def _quadrature() -> tuple[FloatArray, FloatArray]:
    return np.polynomial.hermite_e.hermegauss(64)


def _mean_logistic(centres: Sequence[float] | FloatArray, variance: float) -> float:
    """Mean of logistic(c + N(0, variance)) over the centres, by Gauss–Hermite quadrature."""
    nodes, weights = _quadrature()
    values = special.expit(np.asarray(centres)[:, None] + np.sqrt(variance) * nodes)
    return float((values @ weights).mean() / weights.sum())
