"""Bootstrap intervals against scipy, statsmodels and full enumeration."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from sizewise.errors import StatisticsError
from sizewise.statistics import resampling
from sizewise.statistics.bootstrap import (
    Interval,
    bootstrap_difference,
    jackknife_means,
    t_quantile,
)
from sizewise.statistics.crossed import VarianceComponents, satterthwaite, variance_components
from sizewise.statistics.resampling import Groups, bootstrap_means, single_examples, units_of


def skewed(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).exponential(size=n)


def interval_of_mean(scores: ArrayLike, groups: Groups | None = None, **options: Any) -> Interval:
    """The interval of the difference of scores [N] or [S, N] from 0."""
    return bootstrap_difference(scores, np.zeros(np.shape(scores)[-1:]), groups, **options)


@pytest.mark.parametrize(("method", "theirs"), [("percentile", "percentile"), ("bca", "BCa")])
def test_intervals_agree_with_scipy(method: str, theirs: str) -> None:
    scores = skewed(60)
    ours = interval_of_mean(scores, method=method, n_resamples=40_000)
    reference = stats.bootstrap(
        (scores,), np.mean, method=theirs, n_resamples=40_000, rng=np.random.default_rng(5)
    ).confidence_interval
    assert ours.low == pytest.approx(reference.low, abs=0.01)
    assert ours.high == pytest.approx(reference.high, abs=0.01)


def test_bca_and_percentile_differ_on_skewed_scores() -> None:
    scores = skewed(60)
    percentile = interval_of_mean(scores, method="percentile")
    bca = interval_of_mean(scores, method="bca")
    assert bca.high > percentile.high + 0.005


def test_paired_interval_is_narrower_than_an_unpaired_one() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=300)
    a, b = shared + 0.1 * rng.normal(size=300), shared + 0.1 * rng.normal(size=300)
    found = bootstrap_difference(a, b)
    reference = stats.ttest_rel(a, b).confidence_interval()
    assert found.low == pytest.approx(reference.low, abs=0.002)
    assert found.high == pytest.approx(reference.high, abs=0.002)


def test_small_samples_get_the_width_of_a_t_interval() -> None:
    widths, reference = [], []
    for seed in range(40):
        scores = np.random.default_rng(seed).normal(size=8)
        found = interval_of_mean(scores, n_resamples=4_000)
        widths.append(found.high - found.low)
        error = scores.std(ddof=1) / np.sqrt(8)
        reference.append(2 * stats.t.isf(0.025, 7) * error)
    assert np.mean(widths) == pytest.approx(np.mean(reference), rel=0.04)


def test_cluster_resamples_have_the_enumerated_distribution() -> None:
    values = np.array([1.0, 2.0, 5.0, 7.0, 7.0, 0.0])
    groups = ["x", "x", "y", "z", "z", "z"]
    members = [[1.0, 2.0], [5.0], [7.0, 7.0, 0.0]]
    exact = [
        np.mean(list(itertools.chain.from_iterable(members[i] for i in draw)))
        for draw in itertools.product(range(3), repeat=3)
    ]
    rng = np.random.default_rng(1)
    drawn = bootstrap_means(values[None, :], units_of(groups, 6), 60_000, rng)[:, 0]
    assert drawn.mean() == pytest.approx(np.mean(exact), abs=0.02)
    assert drawn.std() == pytest.approx(np.std(exact), abs=0.02)
    for value in np.unique(np.round(exact, 9)):
        share = np.mean(np.isclose(drawn, value))
        assert share == pytest.approx(np.mean(np.isclose(exact, value)), abs=0.01)


def test_groups_of_identical_copies_count_once() -> None:
    scores = skewed(50)
    alone = interval_of_mean(scores)
    copied = interval_of_mean(np.repeat(scores, 6), groups=np.repeat(np.arange(50), 6))
    pooled = interval_of_mean(np.repeat(scores, 6))
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high))
    assert pooled.high - pooled.low < 0.5 * (copied.high - copied.low)


def test_cluster_standard_error_is_that_of_statsmodels() -> None:
    rng = np.random.default_rng(3)
    groups = rng.integers(0, 30, 200)
    scores = rng.normal(size=30)[groups] + rng.normal(size=200)
    units = units_of(groups, 200)
    frame = pd.DataFrame({"y": scores})
    fit = ols("y ~ 1", frame).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False}
    )
    scale = np.sqrt(units.count / (units.count - 1))
    assert units.standard_error(scores[None, :])[0] == pytest.approx(float(fit.bse.iloc[0]) * scale)


def test_crossed_variance_is_that_of_a_two_way_anova() -> None:
    rng = np.random.default_rng(4)
    S, N = 6, 40
    scores = rng.normal(size=(S, 1)) + rng.normal(size=(1, N)) + rng.normal(size=(S, N))
    frame = pd.DataFrame(
        {"y": scores.ravel(), "s": np.repeat(np.arange(S), N), "i": np.tile(np.arange(N), S)}
    )
    squares = anova_lm(ols("y ~ C(s) + C(i)", frame).fit())["mean_sq"]
    ms_seed, ms_example, ms_residual = squares["C(s)"], squares["C(i)"], squares["Residual"]
    found = variance_components(scores.mean(axis=0), [scores], single_examples(N))
    assert found.seeds[0][0] == pytest.approx(ms_seed / (S * N))
    assert found.examples == pytest.approx((ms_example - ms_residual) / (S * N))
    assert found.standard_error**2 == pytest.approx((ms_seed + ms_example - ms_residual) / (S * N))


@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.0025])
def test_few_seeds_err_no_more_often_than_a_corrected_level_says(seeds: int, alpha: float) -> None:
    """Plain Satterthwaite errs 4 to 30 times too often where the seeds' share dominates."""
    rng, draws, wrong = np.random.default_rng(0), 6_000, 0
    for _ in range(draws):
        seen = 0.5 * rng.chisquare(seeds - 1) / (seeds - 1)
        examples = 0.1 * rng.chisquare(99) / 99
        parts = VarianceComponents(examples, 99, ((seen, seeds - 1),), examples)
        t = abs(rng.normal(0.0, 0.6**0.5)) / parts.standard_error
        wrong += t > t_quantile(parts.df_at(alpha), 1.0 - alpha)
    limit = 1.35 if seeds == 2 else 1.2
    assert wrong / draws <= limit * alpha + 2.0 * np.sqrt(alpha / draws)


def test_the_p_value_is_the_level_at_which_the_interval_ends_at_zero() -> None:
    parts = VarianceComponents(0.1, 99, ((0.02, 2),), 0.1)
    for estimate in (0.1, 0.8, 1.5, 4.0):
        p = parts.p_value(estimate)
        edge = t_quantile(parts.df_at(p), 1.0 - p) * parts.standard_error
        assert edge == pytest.approx(estimate, rel=1e-6)
    assert 0.0 < parts.p_value(1e6) <= parts.p_value(1e5) < 1e-6
    no_spread = VarianceComponents(1e-6, 99_999, ((0.0, 2),), 1e-6)
    assert 0.0 < no_spread.p_value(5.0) < 1e-40
    assert parts.p_value(4.0) < parts.p_value(1.5) < parts.p_value(0.8) < parts.p_value(0.1)


def test_satterthwaite_by_hand() -> None:
    assert satterthwaite([(2.0, 4), (1.0, 9)]) == pytest.approx(9.0 / (4.0 / 4 + 1.0 / 9))
    assert satterthwaite([(3.0, 4), (0.0, 99)]) == pytest.approx(4.0)
    assert satterthwaite([(0.0, 4), (0.0, 99)]) == 103.0


def test_a_difference_varies_no_less_where_seeds_are_a_level_of_their_own() -> None:
    """Two seeds that are each right once, on other examples, tie: their mean square is 0."""
    scores = np.zeros((2, 72))
    scores[0, 65] = scores[1, 17] = 1.0
    base = np.zeros(72)
    found, given = (bootstrap_difference(scores, base, minimum_seeds=least) for least in (2, 3))
    assert found.low < 0 < found.high
    assert found.high - found.low >= 0.9 * (given.high - given.low)
    rng = np.random.default_rng(3)
    for chance in (0.01, 0.03, 0.1, 0.5):
        for seeds in (2, 3, 5):
            drawn = (rng.random((seeds, 40)) < chance).astype(float)
            parts = variance_components(drawn.mean(axis=0), [drawn], single_examples(40))
            assert parts.standard_error**2 >= parts.examples_raw * (1 - 1e-12)


def test_seed_only_variation_gives_the_t_test_over_seeds() -> None:
    rng = np.random.default_rng(5)
    offsets = rng.normal(size=7)
    scores = offsets[:, None] + np.zeros((7, 50))
    components = variance_components(scores.mean(axis=0), [scores], single_examples(50))
    expected = stats.ttest_1samp(offsets, 0.0)
    assert components.p_value(float(offsets.mean())) == pytest.approx(expected.pvalue)
    found = interval_of_mean(scores, n_resamples=20_000)
    reference = expected.confidence_interval()
    assert found.high - found.low == pytest.approx(reference.high - reference.low, rel=0.12)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_two_seeds_widen_the_interval_and_one_does_not(seeds: int) -> None:
    rng = np.random.default_rng(6)
    base = rng.normal(size=(1, 400))
    scores = base + rng.normal(0.0, 0.5, size=(seeds, 1))
    over_seeds = interval_of_mean(scores)
    given = interval_of_mean(scores[:1])
    assert "seeds" in over_seeds.method
    assert "seeds" not in given.method
    assert over_seeds.high - over_seeds.low > 2.0 * (given.high - given.low)


def test_paired_seeds_drop_what_they_share() -> None:
    rng = np.random.default_rng(7)
    shared = rng.normal(0.0, 1.0, size=(6, 1))
    a = shared + rng.normal(0.0, 0.1, size=(6, 300))
    b = shared + rng.normal(0.0, 0.1, size=(6, 300))
    apart = bootstrap_difference(a, b)
    together = bootstrap_difference(a, b, paired_seeds=True)
    assert apart.high - apart.low > 5.0 * (together.high - together.low)


def test_blocks_do_not_change_the_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(8).normal(size=(3, 50))
    whole = bootstrap_means(rows, single_examples(50), 500, np.random.default_rng(0))
    monkeypatch.setattr(resampling, "BLOCK_ELEMENTS", 130)
    blocks = bootstrap_means(rows, single_examples(50), 500, np.random.default_rng(0))
    np.testing.assert_allclose(whole, blocks, rtol=1e-12)


def test_jackknife_means_leave_out_whole_groups() -> None:
    values = np.array([1.0, 2.0, 6.0])
    found = jackknife_means(values, units_of(["p", "p", "q"], 3))
    np.testing.assert_allclose(found, [6.0, 1.5])


score_lists = st.lists(
    st.tuples(st.floats(-5, 5, width=16), st.floats(-5, 5, width=16)), min_size=2, max_size=30
)


@settings(max_examples=40, deadline=None)
@given(score_lists, st.sampled_from(["expanded", "percentile", "bca"]))
def test_swapping_sides_negates_the_interval(pairs: list[tuple[float, float]], method: str) -> None:
    a, b = np.array(pairs).T
    forth = bootstrap_difference(a, b, method=method, n_resamples=200)
    back = bootstrap_difference(b, a, method=method, n_resamples=200)
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low), abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(score_lists, st.floats(-3, 3), st.floats(0.1, 4))
def test_intervals_move_and_stretch_with_the_scores(
    pairs: list[tuple[float, float]], shift: float, scale: float
) -> None:
    a, b = np.array(pairs).T
    plain = bootstrap_difference(a, b, n_resamples=200)
    moved = bootstrap_difference(scale * a + shift, scale * b, n_resamples=200)
    expected = (scale * plain.low + shift, scale * plain.high + shift)
    assert (moved.low, moved.high) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(
    ("a", "b", "groups", "words"),
    [
        ([0.0, np.nan], [0.0, 1.0], None, "scores_a holds 1 of 2"),
        ([0.0, 1.0, 1.0], [0.0, 1.0], None, "same examples"),
        ([], [], None, "empty"),
        ([0.0, 1.0], [0.0, 1.0], ["g", "g"], "one unit"),
        ([0.0, 1.0], [0.0, 1.0], ["g"], "1 groups for 2"),
        ([0.0, 1.0], [0.0, 1.0], ["g", None], "example 1 is missing"),
    ],
)
def test_what_cannot_be_compared_is_named(a: list, b: list, groups: list, words: str) -> None:
    with pytest.raises(StatisticsError, match=words):
        bootstrap_difference(a, b, groups)


def test_wrong_settings_raise() -> None:
    for wrong in ({"level": 1.0}, {"n_resamples": 0}, {"method": "magic"}, {"minimum_seeds": 1}):
        with pytest.raises(StatisticsError):
            interval_of_mean([0.0, 1.0, 1.0], **wrong)
    with pytest.raises(StatisticsError, match="not ordered"):
        Interval(1.0, 0.0, 0.95, "none")
    with pytest.raises(StatisticsError, match="paired_seeds"):
        bootstrap_difference(np.eye(3), np.eye(3)[:2], paired_seeds=True)
