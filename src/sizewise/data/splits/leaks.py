"""How much a split leaks: shared groups, leaking rows, and what a split of rows would have done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import exp, lgamma

from sizewise.data.example import Example

Parts = Mapping[str, Sequence[Example]]


def shared_groups(parts: Parts) -> int:
    """Count the groups that occur in more than one split."""
    seen = Counter(group for rows in parts.values() for group in {e.group for e in rows})
    return sum(count > 1 for count in seen.values())


def leaking_rows(parts: Parts) -> int:
    """Count the validation and test rows whose group occurs in training."""
    trained = {example.group for example in parts["train"]}
    return sum(e.group in trained for name in ("validation", "test") for e in parts[name])


def row_split_leak(group_sizes: Sequence[int], train_rows: int) -> float:
    """Expected share of test rows whose group is in training, under a random split of rows.

    A test row of a group of g out of N rows has a relative in a training split of n rows drawn
    from the N−1 others with probability 1 − C(N−g, n) / C(N−1, n).

    Args:
        group_sizes: rows of each group; their sum is N.
        train_rows: n, at most N−1.
    """
    total = sum(group_sizes)
    if total < 2 or train_rows < 1:
        return 0.0
    train = min(train_rows, total - 1)
    leaking = sum(size * _relative_in_training(size, total, train) for size in group_sizes)
    return leaking / total


def _relative_in_training(size: int, total: int, train: int) -> float:
    if total - size < train:
        return 1.0
    return 1.0 - exp(_log_choose(total - size, train) - _log_choose(total - 1, train))


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
