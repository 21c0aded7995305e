"""Scores that are ratios of sums: examples count by their weights, in every figure."""

from __future__ import annotations

import numpy as np
import pytest

from sizewise.errors import StatisticsError
from sizewise.statistics.bootstrap import joint_replicates
from sizewise.statistics.comparison import PairedScores, compare_paired_many


def sample(n: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    weights = rng.integers(5, 400, n).astype(float)
    bits_b = rng.normal(2.5, 0.4, n) * weights
    bits_a = bits_b - weights * rng.normal(0.2, 0.1, n)
    return bits_a / weights, bits_b / weights, weights


def test_means_are_ratios_of_sums() -> None:
    a, b, weights = sample()
    (found,) = compare_paired_many([PairedScores(a, b, weights=weights)])
    assert found.mean_a == pytest.approx((a * weights).sum() / weights.sum())
    assert found.difference == pytest.approx(found.mean_a - found.mean_b)
    assert abs(found.difference - (a - b).mean()) > 1e-3


def test_the_interval_is_that_of_a_resampled_ratio() -> None:
    a, b, weights = sample()
    (found,) = compare_paired_many([PairedScores(a, b, weights=weights)], n_resamples=20_000)
    rng = np.random.default_rng(1)
    drawn = rng.integers(0, a.size, (20_000, a.size))
    ratios = ((a - b) * weights)[drawn].sum(axis=1) / weights[drawn].sum(axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    # Stretched to t and to an unbiased variance, so a little wider than the plain percentiles.
    assert found.interval.low == pytest.approx(low, abs=0.1 * (high - low))
    assert found.interval.high == pytest.approx(high, abs=0.1 * (high - low))
    assert found.standard_error == pytest.approx(ratios.std(), rel=0.05)


def test_a_weight_of_k_is_an_example_k_times_in_one_group() -> None:
    a, b, _ = sample(30)
    weights = np.arange(1.0, 31.0) % 4 + 1
    times = weights.astype(int)
    groups = np.repeat(np.arange(30), times)
    (weighted,) = compare_paired_many([PairedScores(a, b, weights=weights)])
    (repeated,) = compare_paired_many(
        [PairedScores(np.repeat(a, times), np.repeat(b, times), groups)]
    )
    assert weighted.difference == pytest.approx(repeated.difference)
    assert weighted.interval.low == pytest.approx(repeated.interval.low)
    assert weighted.interval.high == pytest.approx(repeated.interval.high)
    assert weighted.p_value == pytest.approx(repeated.p_value)


def test_equal_weights_change_nothing() -> None:
    a, b, _ = sample()
    plain, weighted = compare_paired_many(
        [PairedScores(a, b), PairedScores(a, b, weights=np.full(a.size, 7.0))]
    )
    assert weighted.interval.low == pytest.approx(plain.interval.low)
    assert weighted.p_value == plain.p_value


def test_joint_replicates_take_weights() -> None:
    a, b, weights = sample()
    joint = joint_replicates([a, b], weights=weights)
    assert joint.means[0] == pytest.approx((a * weights).sum() / weights.sum())
    assert joint.replicates[:, 0].mean() == pytest.approx(joint.means[0], abs=0.02)


def test_a_weight_that_is_not_positive_is_refused() -> None:
    a, b, weights = sample()
    weights[3] = 0.0
    with pytest.raises(StatisticsError, match="not positive"):
        compare_paired_many([PairedScores(a, b, weights=weights)])
