"""What goes into a paired comparison and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import ArrayLike

from sizewise.statistics.effect import EffectSize
from sizewise.statistics.interval import Interval
from sizewise.statistics.paired import McNemarTest
from sizewise.statistics.sides import SeedSpread
from sizewise.statistics.units import Groups


@dataclass(frozen=True)
class PairedScores:
    """Scores of two sides on the same examples: [N], or [S, N] for S seeds.

    `groups` [N]: examples that are not independent share a key. `binary`: None finds out whether
    scores are only 0 and 1; False never treats them so; True insists on it. `names` are used
    in texts. `weights` [N]: how much each example counts; None counts all alike.
    """

    scores_a: ArrayLike
    scores_b: ArrayLike
    groups: Groups | None = None
    binary: bool | None = None
    paired_seeds: bool = False
    names: tuple[str, str] = ("A", "B")
    weights: ArrayLike | None = None


@dataclass(frozen=True)
class PairedComparison:
    """Difference A − B in units of the score, its uncertainty, and what that rests on.

    `p_value` is that of `test`; `p_value_examples` always is the one over the examples alone,
    conditional on the seeds (equal to `p_value` below five seeds). `smallest_p` is the least
    p-value the test over the examples can give. `n_clusters` is None for independent examples.
    `minimum_detectable_effect` has the scale of the difference (NaN if nothing varies).
    `seed_difference_range`: lowest and highest difference that single seeds give.
    """

    names: tuple[str, str]
    mean_a: float
    mean_b: float
    difference: float
    interval: Interval
    p_value: float
    test: str
    p_value_examples: float
    smallest_p: float
    effect: EffectSize
    minimum_detectable_effect: float
    standard_error: float
    degrees_of_freedom: float
    n: int
    n_clusters: int | None
    seeds_a: SeedSpread
    seeds_b: SeedSpread
    seed_difference_range: tuple[float, float]
    seeds_are_random: bool
    mcnemar: McNemarTest | None
    conditional_on: str
    warnings: tuple[str, ...]
