"""Routing curves, agreement of raters and win rates."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from sizewise.errors import StatisticsError
from sizewise.statistics.agreement import krippendorff_alpha, win_rate
from sizewise.statistics.routing import routing_curve

CONFIDENCE = [0.9, 0.2, 0.6, 0.1]
SMALL = [1.0, 0.0, 1.0, 0.0]
LARGE = [0.0, 1.0, 1.0, 1.0]


def test_curve_by_hand() -> None:
    found = routing_curve(CONFIDENCE, SMALL, LARGE, points=5, folds=2)
    np.testing.assert_allclose(found.shares, [0.0, 0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(found.scores, [0.5, 0.75, 1.0, 1.0, 0.75])
    np.testing.assert_allclose(found.oracle, [0.5, 0.75, 1.0, 1.0, 0.75])
    np.testing.assert_allclose(found.random, [0.5, 0.5625, 0.625, 0.6875, 0.75])
    assert (found.best_share, found.best_score) == (0.5, 1.0)
    assert found.gain_captured == pytest.approx(1.0)


scores = st.floats(0, 1, width=16)
rows = st.lists(st.tuples(st.integers(0, 4), scores, scores), min_size=2, max_size=25)


@settings(max_examples=60, deadline=None)
@given(rows, st.booleans())
def test_oracle_bounds_the_curve_and_ends_are_the_models(
    data: list[tuple[int, float, float]], higher: bool
) -> None:
    sure, small, large = (np.array(column, dtype=float) for column in zip(*data, strict=True))
    found = routing_curve(sure, small, large, points=11, higher_is_better=higher)
    sign = 1.0 if higher else -1.0
    assert np.all(sign * (found.oracle - found.scores) >= -1e-9)
    assert np.all(sign * (found.oracle - found.random) >= -1e-9)
    for line in (found.scores, found.oracle, found.random):
        assert (line[0], line[-1]) == pytest.approx((small.mean(), large.mean()))
    assert sign * (found.best_score - max(sign * small.mean(), sign * large.mean()) * sign) >= -1e-9
    best = np.maximum(sign * small, sign * large).mean()
    assert sign * found.best_score <= best + 1e-9


def test_ties_are_the_mean_over_their_orders() -> None:
    sure = [0.1, 0.5, 0.5, 0.5, 0.9]
    small, large = np.array([0, 1, 0, 0, 1.0]), np.array([1, 0, 1, 0, 1.0])
    found = routing_curve(sure, small, large, points=6, folds=2)
    for routed in range(6):
        totals = []
        for order in itertools.permutations([1, 2, 3]):
            chosen = [0, *order, 4][:routed]
            totals.append(np.where(np.isin(np.arange(5), chosen), large, small).mean())
        assert found.scores[routed] == pytest.approx(np.mean(totals))


def test_useless_confidence_gains_nothing_and_is_not_flattered() -> None:
    rng = np.random.default_rng(0)
    small, large = (rng.random((2, 4000)) < 0.5).astype(float)
    found = routing_curve(rng.random(4000), small, large)
    assert abs(found.gain_captured) < 0.05
    assert found.held_out_score <= found.best_score + 1e-12
    assert found.held_out_score == pytest.approx(0.5, abs=0.02)


def test_good_confidence_beats_both_models_on_held_out_examples() -> None:
    rng = np.random.default_rng(1)
    sure = rng.random(2000)
    small = (rng.random(2000) < 0.2 + 0.7 * sure).astype(float)
    large = (rng.random(2000) < 0.65).astype(float)
    found = routing_curve(sure, small, large)
    assert found.held_out_score > max(small.mean(), large.mean()) + 0.03
    assert 0.2 < found.best_share < 0.9
    assert 0.2 < found.gain_captured < 1.0


def test_equal_models_leave_nothing_to_capture() -> None:
    found = routing_curve([0.1, 0.2], [1.0, 0.0], [1.0, 0.0], folds=2)
    assert math.isnan(found.gain_captured)
    assert found.best_share == 0.0


def test_wrong_routing_raises() -> None:
    with pytest.raises(StatisticsError, match="confidence"):
        routing_curve([0.1], SMALL, LARGE)
    with pytest.raises(StatisticsError, match="NaN"):
        routing_curve([np.nan, 1, 1, 1], SMALL, LARGE)
    with pytest.raises(StatisticsError, match="at least 2"):
        routing_curve(CONFIDENCE, SMALL, LARGE, points=1)


N = None
KRIPPENDORFF_2011 = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
    [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
]


def test_alpha_of_the_published_example() -> None:
    found = krippendorff_alpha(KRIPPENDORFF_2011)
    assert found.alpha == pytest.approx(0.743, abs=0.0005)
    assert (found.units, found.ratings) == (11, 40)


def pairwise_alpha(ratings: list[list[object]]) -> float:
    """1 − observed / expected disagreement, from all pairs of pairable values."""
    columns = [[r for r in c if r is not None] for c in zip(*ratings, strict=True)]
    columns = [c for c in columns if len(c) > 1]
    values = [v for c in columns for v in c]
    n = len(values)
    observed = sum(
        sum(x != y for x, y in itertools.permutations(c, 2)) / (len(c) - 1) for c in columns
    )
    expected = sum(x != y for x, y in itertools.permutations(values, 2)) / (n - 1)
    return 1.0 - observed / expected


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from(["a", "b", "tie", None]), min_size=6, max_size=6),
        min_size=2,
        max_size=4,
    )
)
def test_alpha_equals_the_definition_over_pairs(ratings: list[list[str | None]]) -> None:
    found = krippendorff_alpha(ratings)
    if math.isnan(found.alpha):
        pairable = [
            set(c) - {None}
            for c in zip(*ratings, strict=True)
            if 6 and sum(r is not None for r in c) > 1
        ]
        assert len(set().union(*pairable)) <= 1
    else:
        assert found.alpha == pytest.approx(pairwise_alpha(ratings))


def test_alpha_at_its_ends() -> None:
    assert krippendorff_alpha([["a", "b"], ["a", "b"]]).alpha == 1.0
    assert krippendorff_alpha([["a", "b"], ["b", "a"]]).alpha == pytest.approx(-0.5)
    assert math.isnan(krippendorff_alpha([["a", "a"], ["a", "a"]]).alpha)
    assert math.isnan(krippendorff_alpha([["a", N], [N, "b"]]).alpha)
    with pytest.raises(StatisticsError, match="one entry per item"):
        krippendorff_alpha([["a"], ["a", "b"]])
    with pytest.raises(StatisticsError, match="one entry per item"):
        krippendorff_alpha([])


def test_win_rate_treats_ties_as_told() -> None:
    outcomes = ["a"] * 12 + ["b"] * 6 + ["tie"] * 4
    half = win_rate(outcomes)
    assert (half.wins, half.ties, half.losses) == (12, 4, 6)
    assert half.rate == pytest.approx(14 / 22)
    low, high = proportion_confint(14, 22, method="wilson")
    assert (half.interval.low, half.interval.high) == pytest.approx((low, high))
    without = win_rate(outcomes, ties="exclude")
    assert without.rate == pytest.approx(12 / 18)
    assert without.ties == 4
    assert without.effective_n == 18


def test_repeated_ratings_of_one_item_are_not_independent() -> None:
    outcomes = (["a"] * 3 + ["b"] * 2) * 4
    alone = win_rate(outcomes)
    copied = win_rate(
        [o for o in outcomes for _ in range(5)], [i for i in range(20) for _ in "12345"]
    )
    assert copied.effective_n == pytest.approx(19.0)
    assert copied.interval.low == pytest.approx(alone.interval.low, abs=0.01)
    unanimous = win_rate(["a"] * 10, [0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    assert unanimous.effective_n == 2
    assert unanimous.interval.low < 0.4


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "tie"]), min_size=1, max_size=40))
def test_win_rates_of_the_two_sides_add_up_to_one(outcomes: list[str]) -> None:
    swapped = [{"a": "b", "b": "a", "tie": "tie"}[o] for o in outcomes]
    ours, theirs = win_rate(outcomes), win_rate(swapped)
    assert ours.rate + theirs.rate == pytest.approx(1.0)
    assert ours.interval.low == pytest.approx(1.0 - theirs.interval.high, abs=1e-9)
    assert ours.interval.low <= ours.rate + 1e-9


def test_wrong_ratings_raise() -> None:
    for outcomes, options, words in (
        (["A"], {}, "'A' is unknown"),
        (["tie"], {"ties": "exclude"}, "no rating"),
        ([], {}, "no rating"),
        (["a"], {"items": [1, 2]}, "2 items"),
        (["a"], {"ties": "win"}, "unknown"),
    ):
        with pytest.raises(StatisticsError, match=words):
            win_rate(outcomes, **options)
