"""Holm's correction, effect sizes and detectable effects."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint, proportion_effectsize

from sizewise.errors import StatisticsError
from sizewise.statistics.effect import (
    cohens_d_z,
    cohens_h,
    discordant_odds_ratio,
    minimum_detectable_effect,
)
from sizewise.statistics.paired import holm, mcnemar_test


def minimum_detectable_difference(differences: np.ndarray | list[float], **options: Any) -> float:
    """The detectable effect of independent examples with these paired differences."""
    error = float(np.std(differences, ddof=1)) / math.sqrt(len(differences))
    return minimum_detectable_effect(error, len(differences) - 1, **options)


p_lists = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20)


def test_holm_by_hand() -> None:
    found = holm([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(found.adjusted, [0.03, 0.06, 0.06, 0.02])
    assert found.rejected.tolist() == [True, False, False, True]


def test_figures_are_those_of_statsmodels() -> None:
    draw = np.random.default_rng(1)
    for size in (1, 2, 7, 40):
        p_values = draw.uniform(size=size) ** 3
        reject, adjusted, _, _ = multipletests(p_values, alpha=0.05, method="holm")
        found = holm(p_values)
        np.testing.assert_allclose(found.adjusted, adjusted)
        assert found.rejected.tolist() == reject.tolist()
    for only_a, only_b in ((0, 5), (7, 2), (4, 4), (30, 11)):
        a = np.repeat([1.0, 0.0, 1.0, 0.0], [only_a, only_b, 6, 3])
        b = np.repeat([0.0, 1.0, 1.0, 0.0], [only_a, only_b, 6, 3])
        expected = mcnemar([[6, only_a], [only_b, 3]], exact=True).pvalue
        assert mcnemar_test(a, b).p_exact == pytest.approx(expected)
        _, odds = discordant_odds_ratio(only_a, only_b)
        low, high = proportion_confint(only_a, only_a + only_b, method="beta")
        assert odds is not None
        assert odds.low == pytest.approx(low / (1 - low))
        assert odds.high == pytest.approx(high / (1 - high))
    assert cohens_h(0.7, 0.25) == pytest.approx(proportion_effectsize(0.7, 0.25))


@settings(max_examples=30, deadline=None)
@given(p_lists)
def test_holm_is_monotone_and_between_raw_and_bonferroni(p_values: list[float]) -> None:
    found = holm(p_values)
    raw = np.array(p_values)
    order = np.argsort(raw, kind="stable")
    assert np.all(np.diff(found.adjusted[order]) >= -1e-12)
    assert np.all(found.adjusted >= raw - 1e-12)
    assert np.all(found.adjusted <= np.minimum(1.0, raw * raw.size) + 1e-12)
    running = [min(1.0, (raw.size - k) * p) for k, p in enumerate(raw[order])]
    np.testing.assert_allclose(found.adjusted[order], np.maximum.accumulate(running), atol=1e-12)


def test_holm_refuses_or_passes_missing_p_values() -> None:
    with pytest.raises(StatisticsError, match=r"\[1\] are NaN"):
        holm([0.01, np.nan])
    found = holm([0.02, np.nan, 0.01], nan="propagate")
    np.testing.assert_allclose(found.adjusted, [0.02, np.nan, 0.02])
    assert found.rejected.tolist() == [True, False, True]
    assert holm([]).adjusted.size == 0
    assert np.isnan(holm([np.nan], nan="propagate").adjusted).all()
    for wrong in ([1.2], [-0.1], [[0.1]]):
        with pytest.raises(StatisticsError):
            holm(wrong)


def test_effect_sizes_by_hand() -> None:
    assert cohens_d_z([1.0, 2.0, 3.0]) == pytest.approx(2.0)
    assert cohens_d_z([0.0, 0.0]) == 0.0
    assert cohens_d_z([-0.5, -0.5]) == -math.inf
    expected = 2 * math.asin(math.sqrt(0.6)) - 2 * math.asin(math.sqrt(0.5))
    assert cohens_h(0.6, 0.5) == pytest.approx(expected)
    assert cohens_h(0.5, 0.6) == pytest.approx(-expected)


def test_odds_ratio_of_discordant_pairs() -> None:
    ratio, interval = discordant_odds_ratio(9, 3)
    reference = stats.binomtest(9, 12).proportion_ci(method="exact")
    assert ratio == 3.0
    assert interval is not None
    assert interval.low == pytest.approx(reference.low / (1 - reference.low))
    assert interval.high == pytest.approx(reference.high / (1 - reference.high))
    assert discordant_odds_ratio(0, 0) == (None, None)
    ratio, interval = discordant_odds_ratio(4, 0)
    assert ratio == math.inf
    assert interval is not None
    assert interval.high == math.inf


@pytest.mark.parametrize("n", [5, 30, 1000])
@pytest.mark.parametrize(("ours", "theirs"), [("two-sided", "two-sided"), ("one-sided", "larger")])
@pytest.mark.parametrize("power", [0.3, 0.8, 0.95])
def test_detectable_effect_has_the_power_of_statsmodels(
    n: int, ours: str, theirs: str, power: float
) -> None:
    error = 0.7 / math.sqrt(n)
    found = minimum_detectable_effect(error, n - 1, power=power, alternative=ours)
    reached = TTestPower().power(found / 0.7, n, 0.05, alternative=theirs)
    assert reached == pytest.approx(power, abs=1e-6)


@pytest.mark.parametrize("df", [1.0, 1.3, 2.0, 3.0])
@pytest.mark.parametrize("power", [0.3, 0.8, 0.95])
def test_detectable_effect_of_two_or_three_units_has_its_power(df: float, power: float) -> None:
    """Power by integrating the normal tails over the chi distribution of the standard error."""
    found = minimum_detectable_effect(1.0, df, power=power)
    critical = stats.t.ppf(0.975, df)

    def reached(error: float) -> float:
        tails = stats.norm.sf([critical * error - found, critical * error + found]).sum()
        return float(tails * stats.chi.pdf(error * math.sqrt(df), df) * math.sqrt(df))

    value, _ = integrate.quad(reached, 0.0, np.inf, epsabs=1e-10, limit=500)
    assert value == pytest.approx(power, abs=1e-6)


def test_detectable_effect_shrinks_with_examples_and_grows_with_caution() -> None:
    differences = np.random.default_rng(0).normal(size=400)
    few = minimum_detectable_difference(differences[:100])
    many = minimum_detectable_difference(differences)
    assert few == pytest.approx(2 * many, rel=0.15)
    assert minimum_detectable_difference(differences, alpha=0.005) > many
    assert minimum_detectable_difference(differences, alternative="one-sided") < many
    assert math.isnan(minimum_detectable_difference([0.2, 0.2]))


def test_wrong_designs_raise() -> None:
    for wrong in ({"alpha": 0.0}, {"power": 1.0}, {"alpha": 0.9}, {"alternative": "up"}):
        with pytest.raises(StatisticsError):
            minimum_detectable_effect(0.1, 99, **wrong)
    with pytest.raises(StatisticsError, match="degree of freedom"):
        minimum_detectable_effect(0.1, 0)
