"""Successive halving (Jamieson & Talwalkar 2016): who goes on from a rung, as far as that is sure.

Pure functions of the losses that are known. What they call sure stays so whatever else becomes
known, so that launchers which see different parts of a sweep's directory never contradict each
other, and one that was killed is followed by one that decides the same.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from sizewise.record.stops import by_loss

Losses = Mapping[str, float | None]


@dataclass(frozen=True)
class Rung:
    """A comparison of candidates after a ``share`` of their steps.

    The ``keep`` best go on, as far as their loss is at most ``margin`` (a share of it; None: any)
    above the lowest, and the best of each of ``groups`` (candidate → its group) in any case.
    ``each`` says in keys of the configuration what the groups are.
    """

    share: float
    keep: int
    groups: Mapping[str, str]
    each: tuple[str, ...] = ()
    margin: float | None = None

    @property
    def survivors(self) -> int:
        """How many go on where all are within the margin, at least."""
        return min(len(self.groups), max(self.keep, self._firsts))

    @property
    def least(self) -> int:
        """How many go on at least, unless they diverge."""
        return self.survivors if self.margin is None else self._firsts

    @property
    def most(self) -> int:
        """How many go on at most: the best of a group may be none of the ``keep`` best."""
        return min(len(self.groups), max(0, self.keep - 1) + self._firsts)

    @property
    def _firsts(self) -> int:
        return len(set(self.groups.values()))

    def near(self, loss: float, lowest: float) -> bool:
        """Whether a loss is within the margin of the lowest."""
        return self.margin is None or loss <= lowest * (1 + self.margin)


@dataclass(frozen=True)
class Fate:
    """``passed``: number of rungs surely behind a candidate; ``out``: it goes no further."""

    passed: int = 0
    out: bool = False


def kept_of(count: int, share: float) -> int:
    """A share of a number, rounded up; what floats make of 100 × 0.1² is 1 and not 2."""
    return max(1, math.ceil(count * share - 1e-9))


def halve(
    names: Collection[str],
    rungs: Sequence[Rung],
    losses_at: Callable[[int, Collection[str]], Losses],
) -> dict[str, Fate]:
    """Return what is sure of every candidate.

    Args:
        losses_at: given the number of a rung and the candidates that may be compared there, returns
            the losses that are known; None is that of one that diverged.
    """
    fates = dict.fromkeys(names, Fate())
    sure = contenders = frozenset(names)
    for number, rung in enumerate(rungs):
        losses = losses_at(number, contenders)
        stay, leave = _decide(rung, losses, sure, contenders)
        fates |= {name: Fate(number + 1) for name in stay}
        fates |= {name: Fate(fates[name].passed, out=True) for name in leave}
        sure, contenders = stay, contenders - leave
    return fates


def _decide(
    rung: Rung, losses: Losses, sure: frozenset[str], contenders: frozenset[str]
) -> tuple[frozenset[str], frozenset[str]]:
    """Return who surely goes on and who surely does not.

    ``sure`` are surely compared here, and ``contenders`` possibly: each of those may yet turn out
    better than all others while its loss is not known, and leave them outside the margin.
    """
    order = {name: by_loss(losses[name], name) for name in contenders if name in losses}
    unknown = contenders - order.keys()
    unknown_of = Counter(rung.groups[name] for name in unknown)
    better_of, sure_of, surely_better = Counter[str](), Counter[str](), 0  # of each group; of all
    lowest = min((loss for loss, _ in order.values()), default=math.inf)
    lowest_sure = min((order[name][0] for name in order.keys() & sure), default=math.inf)
    stay, leave = set(), set()
    for better, name in enumerate(sorted(order, key=order.__getitem__)):
        group, loss = rung.groups[name], order[name][0]
        best_of_group = better_of[group] + unknown_of[group] == 0
        beaten = surely_better >= rung.keep or not rung.near(loss, lowest_sure)
        near = rung.margin is None or (not unknown and rung.near(loss, lowest))
        if math.isinf(loss) or (beaten and sure_of[group]):
            leave.add(name)
        elif name in sure and ((near and better + len(unknown) < rung.keep) or best_of_group):
            stay.add(name)
        better_of[group] += 1
        sure_of[group] += name in sure
        surely_better += name in sure
    return frozenset(stay), frozenset(leave)
