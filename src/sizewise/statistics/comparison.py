"""One paired comparison with everything that a claim about it needs, in numbers and words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from numpy.typing import ArrayLike

from sizewise.errors import StatisticsError
from sizewise.statistics.bootstrap import (
    Interval,
    batches_of,
    both_intervals,
    differences_of,
    t_quantile,
)
from sizewise.statistics.crossed import VarianceComponents, variance_components
from sizewise.statistics.effect import (
    EffectSize,
    cohens_d_z,
    cohens_h,
    discordant_odds_ratio,
    minimum_detectable_effect,
)
from sizewise.statistics.margin import Discordance, OneSided, same_everywhere
from sizewise.statistics.paired import McNemarTest, is_binary, mcnemar_test, sign_flip_tests
from sizewise.statistics.resampling import Groups
from sizewise.statistics.sides import MINIMUM_SEEDS, SeedSpread, Side, Sides, sides_of


def compare_paired(
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    groups: Groups | None = None,
    binary: bool | None = None,
    seed: int = 0,
    *,
    paired_seeds: bool = False,
    names: tuple[str, str] = ("A", "B"),
    **options: Any,
) -> PairedComparison:
    """Compare A with B on the same examples; see PairedScores and PairedComparison.

    Interval and p-value are over the examples and over the seeds of each side that has at least
    `minimum_seeds`; fewer seeds are averaged and taken as given. The test over the examples is
    McNemar's exact one for binary scores of one seed each, otherwise sign flips
    (of whole groups where examples share one). The same `seed` gives the same figures.
    Raises StatisticsError for scores that do not fit together or are not finite.
    """
    pair = PairedScores(scores_a, scores_b, groups, binary, paired_seeds, names)
    return compare_paired_many([pair], seed, **options)[0]


def compare_paired_many(
    pairs: Sequence[PairedScores],
    seed: int = 0,
    *,
    level: float = 0.95,
    alpha: float = 0.05,
    power: float = 0.8,
    n_resamples: int = 10_000,
    n_permutations: int | None = None,
    minimum_seeds: int = MINIMUM_SEEDS,
) -> list[PairedComparison]:
    """`compare_paired` of many pairs, much faster: resamples are shared by pairs on equal units.

    p-values are not corrected for their number (see `paired.holm` and `paired.fallback`).
    `n_permutations`: draws of the sign flips, as many as resamples where None. `alpha` and
    `power` are for the minimum detectable effect.
    """
    sides = [
        sides_of(
            p.scores_a,
            p.scores_b,
            p.groups,
            paired_seeds=p.paired_seeds,
            minimum_seeds=minimum_seeds,
            weights=p.weights,
        )
        for p in pairs
    ]
    binary = [_is_binary(s, p.binary) for s, p in zip(sides, pairs, strict=True)]
    intervals = both_intervals(sides, level=level, n_resamples=n_resamples, seed=seed)
    tests = _example_tests(sides, binary, n_permutations or n_resamples, seed)
    return [
        _finish(pair, s, flag, interval, test, alpha, power)
        for pair, s, flag, interval, test in zip(
            pairs, sides, binary, intervals, tests, strict=True
        )
    ]


@dataclass(frozen=True)
class _ExampleTest:
    name: str
    p_value: float
    smallest_p: float
    drawn: bool
    mcnemar: McNemarTest | None


def _is_binary(sides: Sides, wanted: bool | None) -> bool:
    found = is_binary(sides.a.scores) and is_binary(sides.b.scores)
    if wanted and not found:
        raise StatisticsError("binary=True, but the scores hold values other than 0 and 1.")
    return found if wanted is None else wanted


def _example_tests(
    pairs: Sequence[Sides], binary: Sequence[bool], n_resamples: int, seed: int
) -> list[_ExampleTest]:
    tests: dict[int, _ExampleTest] = {}
    for positions in batches_of(pairs):
        units = pairs[positions[0]].units
        rows = differences_of(pairs, positions)
        flips = sign_flip_tests(rows, units, n_resamples=n_resamples, seed=seed)
        for position, flip in zip(positions, flips, strict=True):
            kind = "exact" if flip.exact else f"{flip.n_resamples} draws"
            of = "groups" if units.clustered else "examples"
            name = f"sign-flip permutation of {of} ({kind})"
            drawn = not flip.exact
            tests[position] = _ExampleTest(name, flip.p_value, flip.smallest_p, drawn, None)
    for position, (sides, flag) in enumerate(zip(pairs, binary, strict=True)):
        if flag and not sides.units.clustered and sides.a.n_seeds == sides.b.n_seeds == 1:
            found = mcnemar_test(sides.a.scores[0], sides.b.scores[0])
            least = min(1.0, 2.0 ** (1 - found.only_a - found.only_b))
            tests[position] = _ExampleTest("McNemar, exact", found.p_exact, least, False, found)
    return [tests[position] for position in range(len(pairs))]


def _effect(sides: Sides, binary: bool, mcnemar: McNemarTest | None, level: float) -> EffectSize:
    differences = sides.differences
    effect = EffectSize(float(differences.mean()), cohens_d_z(differences))
    if not binary:
        return effect
    h = cohens_h(float(sides.a.scores.mean()), float(sides.b.scores.mean()))
    if mcnemar is None:
        return replace(effect, cohens_h=h)
    ratio, interval = discordant_odds_ratio(mcnemar.only_a, mcnemar.only_b, level)
    return replace(effect, cohens_h=h, odds_ratio=ratio, odds_ratio_interval=interval)


SAME_EVERYWHERE = "Clopper-Pearson bound for equal differences"


def bound_of_equals(
    seen: float, n_units: int, level: float = 0.95, least: float = -1.0
) -> Interval:
    """Bound a mean of values that are the same on every unit, so that resampling shows nothing.

    Clopper-Pearson's bound on the share of units that could differ (0 of U seen), times the most
    by which one can: values lie between `least` (-1 for differences, 0 for scores) and 1.
    """
    share = 1.0 - ((1.0 - level) / 2.0) ** (1.0 / n_units)
    low, high = seen - share * (seen - least), seen + share * (1.0 - seen)
    return Interval(low, high, level, SAME_EVERYWHERE)


def _test(sides: Sides, components: VarianceComponents, test: _ExampleTest) -> tuple[str, float]:
    if sides.seeds_are_random and components.standard_error > 0.0:
        name = "t over seeds and examples (Satterthwaite)"
        return name, components.p_value(float(sides.differences.mean()))
    return test.name, test.p_value


def _detectable(components: VarianceComponents, alpha: float, power: float) -> float:
    error, df = components.standard_error, components.degrees_of_freedom
    if components.seeds and error > 0.0:
        return components.detectable(alpha, power)
    return minimum_detectable_effect(error, df, alpha=alpha, power=power)


def _finish(
    pair: PairedScores,
    sides: Sides,
    binary: bool,
    intervals: tuple[Interval, Interval],
    test: _ExampleTest,
    alpha: float,
    power: float,
) -> PairedComparison:
    differences = sides.differences
    interval, given = intervals
    components = variance_components(differences, [m for _, m in sides.random_scores], sides.units)
    if binary and same_everywhere(sides, components.standard_error):
        interval = bound_of_equals(float(differences.flat[0]), sides.units.count, interval.level)
        given = interval
    name, p_value = _test(sides, components, test)
    error, df = components.standard_error, components.degrees_of_freedom
    return PairedComparison(
        names=pair.names,
        mean_a=float(sides.a.scores.mean()),
        mean_b=float(sides.b.scores.mean()),
        difference=float(differences.mean()),
        interval=interval,
        given_seeds=given,
        p_value=p_value,
        test=name,
        p_value_examples=test.p_value,
        smallest_p=test.smallest_p,
        p_floor=test.smallest_p if test.drawn and name == test.name else 0.0,
        effect=_effect(sides, binary, test.mcnemar, interval.level),
        alpha=alpha,
        power=power,
        standard_error=error,
        degrees_of_freedom=df,
        components=components,
        n=sides.units.examples,
        n_clusters=sides.units.count if sides.units.clustered else None,
        seeds_a=sides.a.spread,
        seeds_b=sides.b.spread,
        seed_difference_range=sides.seed_difference_range,
        seeds_are_random=sides.seeds_are_random,
        mcnemar=test.mcnemar,
        conditional_on=conditional_note(sides, pair.names),
        discordance=Discordance.of(sides),
    )


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

    `interval` is over seeds and examples, `given_seeds` over the examples alone, conditional on
    the seeds. `p_value` is that of `test`; `p_value_examples` always is the one over the examples
    alone (equal to `p_value` where no seeds vary). `smallest_p` is the least p-value the test over
    the examples can give, `p_floor` the least that its random draws can show: at it the p-value
    is an upper bound; 0 where nothing was drawn. `n_clusters` is None for independent examples.
    `alpha` and `power` are those of `minimum_detectable_effect`; `components` are what that and the
    t tests follow from.
    `seed_difference_range`: lowest and highest difference that single seeds give.
    """

    names: tuple[str, str]
    mean_a: float
    mean_b: float
    difference: float
    interval: Interval
    given_seeds: Interval
    p_value: float
    test: str
    p_value_examples: float
    smallest_p: float
    p_floor: float
    effect: EffectSize
    alpha: float
    power: float
    standard_error: float
    degrees_of_freedom: float
    components: VarianceComponents
    n: int
    n_clusters: int | None
    seeds_a: SeedSpread
    seeds_b: SeedSpread
    seed_difference_range: tuple[float, float]
    seeds_are_random: bool
    mcnemar: McNemarTest | None
    conditional_on: str
    discordance: Discordance | None

    @property
    def n_units(self) -> int:
        """Number of independent units: groups, or examples."""
        return self.n if self.n_clusters is None else self.n_clusters

    def interval_at(self, level: float) -> Interval:
        """The interval at another level: its ends stretched by the ratio of the t quantiles.

        Far quantiles of a bootstrap need very many resamples; the t quantiles need none.
        """
        seen = self.interval
        if seen.method == SAME_EVERYWHERE:
            return bound_of_equals(self.difference, self.n_units, level)
        wide, known = (
            t_quantile(self.components.df_at(1.0 - each), each) for each in (level, seen.level)
        )
        ratio = wide / known
        low = self.difference + ratio * (seen.low - self.difference)
        high = self.difference + ratio * (seen.high - self.difference)
        return Interval(low, high, level, seen.method)

    @property
    def one_sided(self) -> OneSided:
        """What one-sided tests against any value need."""
        return OneSided(
            self.difference,
            self.components,
            self.n_units,
            self.interval.method == SAME_EVERYWHERE,
            self.discordance,
        )

    @cached_property
    def minimum_detectable_effect(self) -> float:
        """Smallest true difference that a test at level `alpha` finds with `power`.

        On the scale of the difference; NaN if nothing varies.
        """
        return self.detectable(self.alpha, self.power)

    def detectable(self, alpha: float, power: float = 0.8) -> float:
        """Minimum detectable effect of a test at level `alpha`."""
        return _detectable(self.components, alpha, power)


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _sample(sides: Sides) -> str:
    examples = _counted(sides.units.examples, "test example")
    if not sides.units.clustered:
        return examples
    return f"{_counted(sides.units.count, 'group')} of {examples}"


def _model(side: Side, name: str) -> str:
    if side.trained_by_seed:
        return f"the {_counted(side.n_seeds, 'seed')} of {name}"
    return name


def conditional_note(sides: Sides, names: tuple[str, str]) -> str:
    """One sentence: what interval and p-value are over, and what they take as given."""
    models = [_model(sides.a, names[0]), _model(sides.b, names[1])]
    if not sides.seeds_are_random:
        both = " and on ".join(models)
        averaged = ", averaged over seeds" if max(sides.a.n_seeds, sides.b.n_seeds) > 1 else ""
        return f"Over the {_sample(sides)}{averaged}; conditional on {both}."
    flags = (sides.varies(sides.a), sides.varies(sides.b))
    random = [m for m, flag in zip(models, flags, strict=True) if flag]
    fixed = [
        m if side.trained_by_seed else f"{m}, which has no seed"
        for m, side, flag in zip(models, (sides.a, sides.b), flags, strict=True)
        if not flag
    ]
    given = f"; conditional on {fixed[0]}" if fixed else ""
    return f"Over the {_sample(sides)} and {' and '.join(random)}, all seen as samples{given}."
