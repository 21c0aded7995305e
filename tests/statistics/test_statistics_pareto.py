"""Pareto fronts, hypervolumes and break-even points."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sizewise.errors import StatisticsError
from sizewise.statistics.cost import (
    api_cost_per_answer,
    break_even,
    device_cost,
    hypervolume,
    pareto_front,
)

small_ints = st.integers(0, 6).map(float)


def points_of(n_objectives: int) -> st.SearchStrategy[list[tuple[float, ...]]]:
    return st.lists(st.tuples(*[small_ints] * n_objectives), min_size=1, max_size=7)


def beats(p: tuple[float, ...], q: tuple[float, ...], signs: list[int]) -> bool:
    gains = [s * (x - y) for s, x, y in zip(signs, p, q, strict=True)]
    return min(gains) >= 0 and max(gains) > 0


@settings(max_examples=80, deadline=None)
@given(points_of(3))
def test_front_is_exactly_the_undominated_points(points: list[tuple[float, ...]]) -> None:
    found = pareto_front(points, ["max", "min", "min"])
    for point, member in zip(points, found.on_front, strict=True):
        assert member == (not any(beats(other, point, [1, -1, -1]) for other in points))
    assert found.on_front.any()
    assert found.complete.all()


def test_ties_stay_and_missing_objectives_take_a_point_out() -> None:
    points = [[0.5, 10.0], [0.5, 10.0], [0.9, np.nan], [0.4, 20.0]]
    found = pareto_front(points, ["max", "min"])
    assert found.on_front.tolist() == [True, True, False, False]
    assert found.complete.tolist() == [True, True, False, True]


def inclusion_exclusion(points: list[tuple[float, ...]], corner: tuple[float, ...]) -> float:
    """Volume of a union of boxes from each (minimised) point to the corner."""
    total = 0.0
    for size in range(1, len(points) + 1):
        for chosen in itertools.combinations(points, size):
            sides = [
                max(0.0, c - max(x)) for c, x in zip(corner, zip(*chosen, strict=True), strict=True)
            ]
            total += (-1) ** (size + 1) * math.prod(sides)
    return total


@pytest.mark.parametrize("n_objectives", [1, 2, 3, 4])
def test_hypervolume_equals_inclusion_and_exclusion(n_objectives: int) -> None:
    @settings(max_examples=40, deadline=None)
    @given(points_of(n_objectives))
    def check(points: list[tuple[float, ...]]) -> None:
        corner = (5.0,) * n_objectives
        found = hypervolume(points, ["min"] * n_objectives, corner)
        assert found.volume == pytest.approx(inclusion_exclusion(points, corner))
        assert 0.0 <= found.share <= 1.0

    check()


def test_hypervolume_by_hand_with_mixed_directions() -> None:
    found = hypervolume([[0.5, 1.0], [0.9, 3.0], [0.2, 4.0]], ["max", "min"], [0.0, 5.0])
    assert found.volume == pytest.approx(0.5 * 4.0 + 0.4 * 2.0)
    assert found.share == pytest.approx(2.8 / (0.9 * 4.0))
    assert found.reference == (0.0, 5.0)


def test_default_reference_lies_a_tenth_beyond_the_worst() -> None:
    found = hypervolume([[0.5, 1.0], [0.9, 3.0], [np.nan, 9.0]], ["max", "min"])
    assert found.reference == pytest.approx((0.46, 3.2))
    one = hypervolume([[0.5, 1.0]], ["max", "min"])
    assert one.reference == (-0.5, 2.0)
    assert one.share == pytest.approx(1.0)


def test_dominated_points_add_nothing_and_new_front_points_do() -> None:
    front = [[0.5, 1.0], [0.9, 3.0]]
    plain = hypervolume(front, ["max", "min"], [0.0, 5.0]).volume
    worse = hypervolume([*front, [0.4, 4.0]], ["max", "min"], [0.0, 5.0]).volume
    better = hypervolume([*front, [0.8, 2.0]], ["max", "min"], [0.0, 5.0]).volume
    assert plain == pytest.approx(worse)
    assert better > plain


def test_wrong_objectives_raise() -> None:
    for points, directions in (
        ([[1.0, 2.0]], ["max"]),
        ([[1.0, 2.0]], ["max", "up"]),
        ([1.0], ["max"]),
        (np.empty((0, 2)), ["max", "min"]),
    ):
        with pytest.raises(StatisticsError):
            pareto_front(points, directions)
    with pytest.raises(StatisticsError, match="No point"):
        hypervolume([[np.nan, 1.0]], ["max", "min"])
    with pytest.raises(StatisticsError, match="infinite"):
        hypervolume([[np.inf, 1.0]], ["max", "min"])
    with pytest.raises(StatisticsError, match="reference"):
        hypervolume([[1.0, 1.0]], ["max", "min"], [0.0])


def test_break_even_by_hand() -> None:
    found = break_even(10.0, 0.001, 0.004)
    assert math.isfinite(found.answers)
    assert found.answers == 3334
    assert found.saving_per_answer == pytest.approx(0.003)
    assert 10.0 + 3334 * 0.001 <= 3334 * 0.004
    assert 10.0 + 3333 * 0.001 > 3333 * 0.004


@pytest.mark.parametrize(
    ("small", "large", "words"),
    [(0.004, 0.001, "costs more"), (0.002, 0.002, "costs the same")],
)
def test_break_even_says_why_it_never_comes(small: float, large: float, words: str) -> None:
    found = break_even(10.0, small, large)
    assert not math.isfinite(found.answers)
    assert found.answers == math.inf
    assert found.reason.startswith("never")
    assert words in found.reason


def test_free_training_and_bad_costs() -> None:
    assert break_even(0.0, 0.001, 0.002).answers == 0.0
    assert break_even(1e300, 0.0, 1e-300).answers == math.inf
    for wrong in ((-1.0, 0.1, 0.2), (1.0, math.nan, 0.2), (1.0, 0.1, math.inf)):
        with pytest.raises(StatisticsError):
            break_even(*wrong)


def test_api_and_device_prices() -> None:
    assert api_cost_per_answer(500, 100, 0.003) == pytest.approx(0.0018)
    assert api_cost_per_answer(500, 100, 0.003, 0.015) == pytest.approx(0.003)
    assert device_cost(1800.0, 2.5) == pytest.approx(1.25)
    paid = break_even(device_cost(7200.0, 2.0), 0.0001, api_cost_per_answer(400, 50, 0.002))
    assert paid.answers == math.ceil(4.0 / (0.0009 - 0.0001))
    with pytest.raises(StatisticsError, match="prompt_tokens"):
        api_cost_per_answer(-1, 1, 0.1)
