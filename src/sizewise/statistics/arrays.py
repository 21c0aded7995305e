"""Checked conversion of caller's data to arrays; every error names the argument."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sizewise.errors import StatisticsError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


def finite(values: ArrayLike, name: str, *dimensions: int) -> FloatArray:
    """Return `values` as a float array with one of `dimensions`; empty or non-finite ones raise."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim not in dimensions:
        wanted = " or ".join(str(d) for d in dimensions)
        raise StatisticsError(f"{name} has {array.ndim} dimensions; pass an array with {wanted}.")
    if array.size == 0:
        raise StatisticsError(f"{name} is empty; a statistic needs at least one value.")
    bad = int(np.count_nonzero(~np.isfinite(array)))
    if bad:
        raise StatisticsError(
            f"{name} holds {bad} of {array.size} values that are NaN or infinite; give every "
            "example a defined score (a wrong or empty answer is 0, not missing)."
        )
    return array


def seeds_by_examples(values: ArrayLike, name: str) -> FloatArray:
    """Return scores as [S, N]; one row of scores [N] becomes [1, N]."""
    return np.atleast_2d(finite(values, name, 1, 2))


def same_length(first: FloatArray, second: FloatArray, names: str) -> None:
    """Raise unless the last axes agree."""
    if first.shape[-1] != second.shape[-1]:
        raise StatisticsError(
            f"{names} cover {first.shape[-1]} and {second.shape[-1]} examples; paired statistics "
            "need the same examples in the same order (see align_by_id)."
        )


def fraction(value: float, name: str) -> float:
    """Return `value` if it lies strictly between 0 and 1."""
    if not 0.0 < value < 1.0:
        raise StatisticsError(f"{name}={value} must lie strictly between 0 and 1.")
    return float(value)


def positive_count(value: int, name: str) -> int:
    if value < 1:
        raise StatisticsError(f"{name}={value} must be at least 1.")
    return int(value)


def align_by_id(
    first: Mapping[str, float],
    second: Mapping[str, float],
    groups: Mapping[str, Hashable] | None = None,
) -> tuple[FloatArray, FloatArray, list[Hashable] | None]:
    """Line up two mappings example id → score, in sorted id order.

    Returns the two arrays [N] and the group of each example (None without `groups`).
    Raises StatisticsError if the ids are not the same set, or an example has no group.
    """
    missing = sorted(set(first) ^ set(second))
    if missing:
        raise StatisticsError(
            f"{len(missing)} example ids have a score on one side only (first: {missing[0]!r}); "
            "compare runs on the same test examples."
        )
    ids = sorted(first)
    a = np.array([first[i] for i in ids], dtype=np.float64)
    b = np.array([second[i] for i in ids], dtype=np.float64)
    if groups is None:
        return a, b, None
    lost = [i for i in ids if i not in groups]
    if lost:
        raise StatisticsError(f"{len(lost)} example ids have no group (first: {lost[0]!r}).")
    return a, b, [groups[i] for i in ids]


def as_directions(directions: Sequence[str], count: int) -> FloatArray:
    """Return +1 for "max" and −1 for "min"; other words, or a wrong number, raise."""
    if len(directions) != count:
        raise StatisticsError(f"{len(directions)} directions for {count} objectives.")
    unknown = sorted(set(directions) - {"max", "min"})
    if unknown:
        raise StatisticsError(f"Direction {unknown[0]!r} is unknown; use 'max' or 'min'.")
    return np.array([1.0 if d == "max" else -1.0 for d in directions])
