"""The combined comparison: what it chooses, says, and that batches change nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_1samp

from sizewise.errors import StatisticsError
from sizewise.statistics.arrays import align_by_id
from sizewise.statistics.bootstrap import bootstrap_difference
from sizewise.statistics.comparison import (
    PairedComparison,
    PairedScores,
    compare_paired,
    compare_paired_many,
)
from sizewise.statistics.paired import mcnemar_test, sign_flip_test

rng = np.random.default_rng(0)
RIGHT_A = (rng.random(300) < 0.6).astype(float)
RIGHT_B = (rng.random(300) < 0.4).astype(float)
SMOOTH_A = rng.random((3, 300))
SMOOTH_B = rng.random(300)
GROUPS = np.arange(300) // 5


def test_binary_scores_of_single_runs_get_mcnemar() -> None:
    found = compare_paired(RIGHT_A[None, :], RIGHT_B)
    expected = mcnemar_test(RIGHT_A, RIGHT_B)
    assert found.test == "McNemar, exact"
    assert found.p_value == found.p_value_examples == expected.p_exact
    assert found.mcnemar == expected
    assert found.effect.odds_ratio == expected.only_a / expected.only_b
    assert 100 * found.effect.difference == pytest.approx(100 * (RIGHT_A.mean() - RIGHT_B.mean()))
    assert found.interval == bootstrap_difference(RIGHT_A, RIGHT_B)
    assert found.conditional_on == (
        "Over the 300 test examples; conditional on the 1 seed of A and on B."
    )


def test_groups_turn_mcnemar_into_flips_of_groups() -> None:
    found = compare_paired(RIGHT_A, RIGHT_B, GROUPS)
    assert found.test.startswith("sign-flip permutation of groups")
    assert found.mcnemar is None
    assert found.n_clusters == 60
    assert found.p_value == sign_flip_test(RIGHT_A - RIGHT_B, GROUPS).p_value
    assert found.effect.cohens_h is not None
    assert found.conditional_on.startswith("Over the 60 groups of 300 test examples")


def test_three_seeds_are_a_level_and_the_interval_given_them_stands_beside() -> None:
    found = compare_paired(SMOOTH_A, SMOOTH_B, names=("nano r=8", "mini"))
    averaged = SMOOTH_A.mean(axis=0) - SMOOTH_B
    assert found.seeds_are_random
    assert found.p_value_examples == sign_flip_test(averaged).p_value
    assert found.given_seeds == bootstrap_difference(SMOOTH_A.mean(axis=0), SMOOTH_B)
    assert found.interval == bootstrap_difference(SMOOTH_A, SMOOTH_B)
    assert found.conditional_on == (
        "Over the 300 test examples and the 3 seeds of nano r=8, all seen as samples; "
        "conditional on mini, which has no seed."
    )
    means = SMOOTH_A.mean(axis=1)
    assert found.seeds_a.means == pytest.approx(tuple(means))
    assert found.seed_difference_range == pytest.approx(
        (means.min() - SMOOTH_B.mean(), means.max() - SMOOTH_B.mean())
    )


def test_seeds_are_never_pooled_as_examples() -> None:
    once = compare_paired(SMOOTH_A[0], SMOOTH_B)
    noise = 1e-9 * np.arange(4)[:, None]
    copies = compare_paired(SMOOTH_A[0] + noise, SMOOTH_B)
    assert copies.n == once.n == 300
    assert copies.p_value == pytest.approx(once.p_value, abs=0.01)
    assert copies.standard_error == pytest.approx(once.standard_error, rel=1e-6)


def test_five_seeds_make_interval_and_p_value_agree() -> None:
    generator = np.random.default_rng(1)
    hidden = generator.normal(0.05, 0.1, size=(5, 1)) + generator.normal(0.5, 0.1, size=(5, 400))
    found = compare_paired(hidden, np.full(400, 0.5) + generator.normal(0, 0.1, 400))
    assert found.seeds_are_random
    assert found.test == "t over seeds and examples (Satterthwaite)"
    assert found.p_value_examples < 0.001 < found.p_value
    assert (found.interval.low > 0 or found.interval.high < 0) == (found.p_value < 0.05)
    assert found.degrees_of_freedom < 6
    assert found.conditional_on.endswith(
        "all seen as samples; conditional on B, which has no seed."
    )


def test_identical_rows_are_one_deterministic_run() -> None:
    found = compare_paired(np.tile(RIGHT_A, (5, 1)), RIGHT_B)
    assert len(found.seeds_a.means) == 1
    assert found.seeds_a.repeats == 5
    assert not found.seeds_are_random
    assert found.test == "McNemar, exact"


@pytest.mark.parametrize("groups", [None, np.arange(60) // 3])
def test_what_is_the_same_on_every_example_still_has_an_interval(
    groups: np.ndarray | None,
) -> None:
    units = 60 if groups is None else 20
    share = binomtest(0, units).proportion_ci(0.95, "exact").high
    right, wrong = np.ones(60), np.zeros(60)
    agree = compare_paired(right, right, groups).interval
    assert (agree.low, agree.high) == pytest.approx((-share, share))
    for seeds in (1, 3):
        always = compare_paired(np.tile(right, (seeds, 1)), wrong, groups)
        assert (always.interval.low, always.interval.high) == pytest.approx((1 - 2 * share, 1))
        assert always.p_value < 0.001
        never = compare_paired(wrong, np.tile(right, (seeds, 1)), groups).interval
        assert (never.low, never.high) == pytest.approx((-1, 2 * share - 1))


def test_a_side_with_one_seed_is_given_and_the_other_side_still_varies() -> None:
    found = compare_paired(rng.random((6, 50)), rng.random((1, 50)))
    assert found.seeds_are_random
    assert "the 6 seeds of A, all seen as samples" in found.conditional_on
    assert found.conditional_on.endswith("conditional on the 1 seed of B.")
    assert found.given_seeds != found.interval


def test_another_level_widens_the_interval_as_its_test_does() -> None:
    """At the level of its p-value the interval of a t statistic ends at 0."""
    scores = rng.normal(0.1, 1.0, (3, 400)) + rng.normal(0.0, 0.05, (3, 1))
    found = compare_paired(scores, np.zeros(400), n_resamples=40_000)
    assert found.interval_at(0.95) == found.interval
    touching = found.interval_at(1.0 - found.p_value)
    assert touching.low == pytest.approx(0.0, abs=0.1 * found.standard_error)
    wide, narrow = found.interval_at(0.999), found.interval_at(0.9)
    assert wide.low < found.interval.low < narrow.low < narrow.high < wide.high


def test_one_sided_p_values_say_how_far_from_a_margin() -> None:
    a, b = rng.normal(0.2, 1.0, 500), rng.normal(0.0, 1.0, 500)
    found = compare_paired(a, b)
    reference = ttest_1samp(a - b, -0.1, alternative="greater").pvalue
    assert found.one_sided.p_at_most(-0.1) == pytest.approx(reference)
    assert found.one_sided.negated.p_at_most(0.1) == pytest.approx(1.0 - reference)
    same = compare_paired(np.ones(60), np.ones(60))
    level = 1.0 - 2.0 * same.one_sided.p_at_most(-0.02)
    assert same.interval_at(level).low == pytest.approx(-0.02)
    assert same.one_sided.p_at_most(0.0) == 1.0


def test_rounding_is_no_difference() -> None:
    """Six examples whose scores differ by rounding alone, always in one direction."""
    scores = np.linspace(4.0, 4.5, 6)
    found = compare_paired(scores * (1.0 + 1e-8), scores)
    assert found.difference == 0.0
    assert found.p_value == 1.0


def test_the_least_detectable_effect_is_known_for_two_seeds() -> None:
    found = compare_paired(rng.random((2, 50)) + np.array([[0.0], [0.1]]), rng.random(50))
    assert found.degrees_of_freedom < 2
    assert np.isfinite(found.minimum_detectable_effect)
    assert found.detectable(0.01) > found.detectable(0.05)


def test_swapping_sides_negates() -> None:
    for a, b in ((RIGHT_A, RIGHT_B), (SMOOTH_A, SMOOTH_B), (rng.random((5, 300)), SMOOTH_B)):
        forth, back = compare_paired(a, b), compare_paired(b, a)
        assert forth.difference == pytest.approx(-back.difference)
        assert forth.p_value == pytest.approx(back.p_value)
        assert forth.interval.low == pytest.approx(-back.interval.high)
        assert forth.effect.cohens_d_z == pytest.approx(-back.effect.cohens_d_z)
        assert forth.minimum_detectable_effect == pytest.approx(back.minimum_detectable_effect)
        low, high = back.seed_difference_range
        assert forth.seed_difference_range == pytest.approx((-high, -low))


def numbers(found: PairedComparison) -> list[float]:
    ends = [found.interval.low, found.interval.high]
    return [found.difference, *ends, found.p_value, found.minimum_detectable_effect]


def test_many_at_once_equal_one_by_one() -> None:
    pairs = [
        PairedScores(RIGHT_A, RIGHT_B),
        PairedScores(SMOOTH_A, SMOOTH_B, GROUPS),
        PairedScores(rng.random((5, 80)), rng.random((7, 80))),
        PairedScores(SMOOTH_A, RIGHT_B),
        PairedScores(rng.random((5, 300)), SMOOTH_B, GROUPS),
    ]
    many = compare_paired_many(pairs, 3, n_resamples=500)
    for pair, found in zip(pairs, many, strict=True):
        alone = compare_paired(pair.scores_a, pair.scores_b, pair.groups, seed=3, n_resamples=500)
        assert numbers(found) == pytest.approx(numbers(alone), abs=1e-12)
        assert replace(found, names=("", "")).test == alone.test


def test_the_seed_decides_the_resamples() -> None:
    first = compare_paired(SMOOTH_A, SMOOTH_B, seed=1)
    assert first == compare_paired(SMOOTH_A, SMOOTH_B, seed=1)
    assert first.interval != compare_paired(SMOOTH_A, SMOOTH_B, seed=2).interval


def test_agreement_on_every_example_still_has_a_bound() -> None:
    found = compare_paired(RIGHT_A, RIGHT_A)
    assert found.p_value == 1.0
    assert found.interval.high == pytest.approx(1 - 0.025 ** (1 / 300))
    assert found.interval.low == -found.interval.high
    assert math.isnan(found.minimum_detectable_effect)


def test_one_right_answer_more_everywhere_is_not_a_certainty() -> None:
    found = compare_paired(np.full(12, 0.75), np.full(12, 0.5))
    assert found.interval.low == found.interval.high == 0.25
    assert found.p_value == pytest.approx(2.0**-11)


def test_planted_difference_is_found_and_absent_one_is_not() -> None:
    generator = np.random.default_rng(5)
    b = (generator.random(500) < 0.5).astype(float)
    flips = generator.random(500)
    better = np.where((b == 0) & (flips < 0.2), 1.0, b)
    same = np.where(flips < 0.1, 1.0 - b, b)
    assert compare_paired(better, b).interval.low > 0
    assert compare_paired(same, b).interval.low <= 0 <= compare_paired(same, b).interval.high


def test_binary_can_be_insisted_on_or_refused() -> None:
    with pytest.raises(StatisticsError, match="binary=True"):
        compare_paired(SMOOTH_A, SMOOTH_B, binary=True)
    found = compare_paired(RIGHT_A, RIGHT_B, binary=False)
    assert found.mcnemar is None
    assert found.effect.cohens_h is None


def test_scores_are_lined_up_by_example_id() -> None:
    a, b, groups = align_by_id({"y": 1.0, "x": 0.0}, {"x": 0.5, "y": 0.25}, {"x": "p", "y": "q"})
    assert (a.tolist(), b.tolist(), groups) == ([0.0, 1.0], [0.5, 0.25], ["p", "q"])
    assert align_by_id({"x": 1.0}, {"x": 0.0})[2] is None
    with pytest.raises(StatisticsError, match="'z'"):
        align_by_id({"x": 1.0, "z": 1.0}, {"x": 0.0})
    with pytest.raises(StatisticsError, match="no group"):
        align_by_id({"x": 1.0}, {"x": 0.0}, {})
