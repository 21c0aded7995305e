"""Learning curves and scaling fits with known crossings."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special

from sizewise.errors import StatisticsError
from sizewise.statistics import learning_curve, scaling
from sizewise.statistics.bootstrap import joint_replicates
from sizewise.statistics.learning_curve import overtaking_size
from sizewise.statistics.scaling import fit_scaling, matching_size

SIZES = [100.0, 200.0, 400.0, 800.0]


def noisy(mean: float, n: int = 400, seed: int = 0, sd: float = 0.1) -> np.ndarray:
    """Scores whose mean is exactly `mean`."""
    noise = np.random.default_rng(seed).normal(0.0, sd, n)
    return mean + noise - noise.mean()


def curve(*means: float) -> list[np.ndarray]:
    return [noisy(mean, seed=10 + k) for k, mean in enumerate(means)]


def test_crossing_is_interpolated_in_log_size() -> None:
    found = overtaking_size(SIZES, curve(0.2, 0.4, 0.6, 0.7), noisy(0.5))
    expected = math.expm1((math.log1p(200) + math.log1p(400)) / 2)
    assert found.status == learning_curve.REACHED
    assert found.examples_needed == pytest.approx(expected)
    assert 200 < found.interval.low < expected < found.interval.high < 400
    assert found.share_reached == 1.0


def test_curve_that_stays_below_is_not_extrapolated() -> None:
    found = overtaking_size(SIZES, curve(0.2, 0.3, 0.4, 0.45), noisy(0.9))
    assert found.status == "not reached within the measured range"
    assert found.examples_needed is None
    assert found.interval.low == found.interval.high == math.inf
    assert found.share_reached == 0.0


def test_curve_that_ends_at_the_level_has_an_open_interval() -> None:
    found = overtaking_size(SIZES, curve(0.2, 0.3, 0.4, 0.502), noisy(0.5))
    assert found.status == learning_curve.REACHED
    assert found.interval.high == math.inf
    assert 0.3 < found.share_reached < 0.9


def test_curve_that_starts_above_is_said_to() -> None:
    found = overtaking_size([0.0, *SIZES], curve(0.6, 0.6, 0.7, 0.7, 0.8), noisy(0.5))
    assert found.status == learning_curve.AT_SMALLEST
    assert found.examples_needed is None
    assert found.interval.low == found.interval.high == 0.0


def test_curve_that_falls_back_has_overtaken_only_at_the_last_crossing() -> None:
    found = overtaking_size(SIZES, curve(0.2, 0.6, 0.4, 0.7), noisy(0.5))
    assert found.examples_needed is not None
    assert 400 < found.examples_needed < 800
    lost = overtaking_size(SIZES, curve(0.2, 0.6, 0.7, 0.4), noisy(0.5))
    assert lost.status == learning_curve.NOT_REACHED


def test_lower_may_be_better() -> None:
    up = overtaking_size(SIZES, curve(0.2, 0.4, 0.6, 0.7), noisy(0.5))
    mirrored = [-row for row in curve(0.2, 0.4, 0.6, 0.7)]
    down = overtaking_size(SIZES, mirrored, -noisy(0.5), higher_is_better=False)
    assert down.examples_needed == pytest.approx(up.examples_needed)
    assert (down.interval.low, down.interval.high) == (up.interval.low, up.interval.high)


def test_seeds_widen_the_crossing_and_copied_examples_in_groups_do_not_narrow_it() -> None:
    rows = curve(0.2, 0.4, 0.6, 0.7)
    spread = 0.1 * np.linspace(-1, 1, 5)[:, None]
    plain = overtaking_size(SIZES, rows, noisy(0.5)).interval
    seeds = overtaking_size(SIZES, [row + spread for row in rows], noisy(0.5)).interval
    assert seeds.high - seeds.low > 3 * (plain.high - plain.low)
    copied = overtaking_size(
        SIZES,
        [np.repeat(row, 4) for row in rows],
        np.repeat(noisy(0.5), 4),
        groups=np.repeat(np.arange(400), 4),
    ).interval
    assert (copied.low, copied.high) == pytest.approx((plain.low, plain.high))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=4, max_size=4), st.floats(0, 1))
def test_crossing_is_never_outside_the_measured_sizes(means: list[float], level: float) -> None:
    found = overtaking_size(SIZES, curve(*means), noisy(level), n_resamples=50)
    if found.examples_needed is not None:
        assert SIZES[0] <= found.examples_needed <= SIZES[-1]
    assert found.interval.low >= SIZES[0]
    assert found.interval.high <= SIZES[-1] or found.interval.high == math.inf


def test_crossing_interval_holds_the_true_size() -> None:
    truth = math.expm1((math.log1p(200) + math.log1p(400)) / 2)
    hits = 0
    for number in range(200):
        rng = np.random.default_rng(number)
        shared = rng.normal(0.0, 0.5, 150)
        rows = [m + shared + rng.normal(0.0, 0.4, 150) for m in (0.2, 0.4, 0.6, 0.8)]
        level = 0.5 + shared + rng.normal(0.0, 0.4, 150)
        found = overtaking_size(SIZES, rows, level, n_resamples=400, seed=number).interval
        hits += found.low <= truth <= found.high
    assert 0.92 <= hits / 200 <= 0.98


def test_wrong_curves_raise() -> None:
    for sizes in ([100.0], [100.0, 100.0], [200.0, 100.0], [-1.0, 5.0], [1.0, 2.0, 3.0]):
        with pytest.raises(StatisticsError):
            overtaking_size(sizes, curve(0.1, 0.2), noisy(0.5))
    with pytest.raises(StatisticsError, match="same examples"):
        overtaking_size([1.0, 2.0], curve(0.1, 0.2), noisy(0.5, n=7))
    with pytest.raises(StatisticsError, match="No scores"):
        joint_replicates([])


MODELS = np.array([1e6, 1e7, 1e8, 1e9])


def logistic_means(intercept: float, slope: float) -> np.ndarray:
    return special.expit(intercept + slope * np.log10(MODELS))


def test_logistic_fit_finds_the_planted_curve_and_agrees_with_scipy() -> None:
    fit = fit_scaling(MODELS, logistic_means(-9.0, 1.2))
    assert (fit.intercept, fit.slope) == pytest.approx((-9.0, 1.2), abs=1e-5)
    assert fit.rmse == pytest.approx(0.0, abs=1e-8)
    rough = [0.1, 0.35, 0.4, 0.8]
    fit = fit_scaling(MODELS, rough)
    reference, _ = optimize.curve_fit(
        lambda x, a, b: special.expit(a + b * x), np.log10(MODELS), rough, p0=(-5.0, 0.7)
    )
    assert (fit.intercept, fit.slope) == pytest.approx(tuple(reference), rel=1e-4)


def test_log_linear_fit_is_a_straight_line() -> None:
    fit = fit_scaling(MODELS, [0.1, 0.2, 0.3, 0.4], form="log-linear")
    assert (fit.intercept, fit.slope) == pytest.approx((-0.5, 0.1))
    assert fit.quality([10**7.5]) == pytest.approx(0.25)


@pytest.mark.parametrize("form", ["logistic", "log-linear"])
def test_matching_size_is_found_within_the_range(form: str) -> None:
    means = logistic_means(-9.0, 1.2) if form == "logistic" else [0.1, 0.2, 0.3, 0.4]
    zero_shot = [noisy(m, seed=k) for k, m in enumerate(means)]
    size = 10**7.4
    level = special.expit(-9.0 + 1.2 * 7.4) if form == "logistic" else 0.24
    found = matching_size(MODELS, zero_shot, noisy(level, seed=9), form=form, n_resamples=300)
    assert found.status == scaling.MATCHED
    assert found.parameters == pytest.approx(size, rel=1e-3)
    assert found.interval.low < size < found.interval.high
    assert found.share_within == 1.0
    assert not found.exact_fit


def test_matches_outside_are_not_extrapolated() -> None:
    zero_shot = [noisy(m, seed=k) for k, m in enumerate(logistic_means(-9.0, 1.2))]
    above = matching_size(MODELS, zero_shot, noisy(0.97, seed=9), n_resamples=100)
    assert above.status == scaling.ABOVE
    assert above.status.startswith("beyond the measured range")
    assert above.parameters is None
    assert above.interval.low == above.interval.high == math.inf
    below = matching_size(MODELS, zero_shot, noisy(0.01, seed=9), n_resamples=100)
    assert below.status == scaling.BELOW
    assert below.interval.high == 0.0


def test_falling_quality_names_no_size() -> None:
    zero_shot = [noisy(m, seed=k) for k, m in enumerate([0.5, 0.4, 0.3, 0.2])]
    found = matching_size(MODELS, zero_shot, noisy(0.35, seed=9), n_resamples=50)
    assert found.status == scaling.NOT_RISING
    assert found.parameters is None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("form", ["logistic", "log-linear"])
@pytest.mark.parametrize("score", [0.0, 0.3, 1.0])
def test_equal_scores_are_a_flat_line(
    form: Literal["logistic", "log-linear"], score: float
) -> None:
    fit = fit_scaling(MODELS, [score] * 4, form=form)
    assert fit is not None
    assert fit.slope == 0.0
    assert fit.quality([1e6, 3e8]) == pytest.approx(score)
    assert fit.rmse == pytest.approx(0.0, abs=1e-12)
    rows = [np.full(50, score)] * 4
    found = matching_size(MODELS, rows, noisy(0.5, n=50), form=form, n_resamples=50)
    assert found.status == scaling.NOT_RISING
    assert found.parameters is None


@pytest.mark.filterwarnings("error")
def test_a_search_without_end_is_no_fit() -> None:
    """Right on no example and on some: the steeper, the better."""
    rows = [np.zeros(200), np.arange(200) % 2 * 1.0]
    assert fit_scaling([1e6, 1e8], [0.0, 0.5]) is None
    found = matching_size([1e6, 1e8], rows, noisy(0.3, n=200), n_resamples=30)
    assert found.fit is None
    assert found.status == scaling.NO_FIT
    assert found.parameters is None
    assert (found.interval.low, found.interval.high) == (0.0, math.inf)
    assert found.share_within == 0.0


@pytest.mark.filterwarnings("error")
def test_resamples_without_a_fit_widen_the_interval() -> None:
    rare = np.zeros(60)
    rare[:2] = 1.0
    half = np.arange(60) % 2 * 1.0
    found = matching_size([1e6, 1e8], [rare, half], np.arange(60) % 5 // 4 * 1.0, n_resamples=200)
    assert found.status == scaling.MATCHED
    assert found.interval.low == 0.0
    assert found.interval.high == math.inf
    assert 0.5 < found.share_within < 1.0


def test_two_sizes_fit_exactly_and_say_so() -> None:
    rows = [noisy(0.2), noisy(0.4, seed=1)]
    found = matching_size([1e6, 1e8], rows, noisy(0.3, seed=2), form="log-linear", n_resamples=50)
    assert found.exact_fit
    assert found.parameters == pytest.approx(1e7, rel=1e-6)


def test_matching_interval_holds_the_true_size() -> None:
    means, truth = logistic_means(-9.0, 1.2), 10**7.5
    level = float(special.expit(-9.0 + 1.2 * 7.5))
    hits = 0
    for number in range(80):
        rng = np.random.default_rng(number)
        right = [(rng.random(300) < m).astype(float) for m in (*means, level)]
        found = matching_size(MODELS, right[:-1], right[-1], n_resamples=100, seed=number)
        hits += found.interval.low <= truth <= found.interval.high
    assert 0.88 <= hits / 80 <= 0.99


def test_wrong_fits_raise() -> None:
    for sizes, means, options in (
        ([1e6], [0.1], {}),
        ([1e6, 1e6], [0.1, 0.2], {}),
        ([0.0, 1e6], [0.1, 0.2], {}),
        ([1e6, 1e7], [0.1], {}),
        ([1e6, 1e7], [0.1, 0.2], {"form": "cubic"}),
        ([1e6, 1e7], [0.1, 0.2], {"lower": 1.0}),
    ):
        with pytest.raises(StatisticsError):
            fit_scaling(sizes, means, **options)
