"""Where names stand in a picture: beside their points, and over nothing.

All places are pixels from the lower left corner; y goes up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import cos, hypot, pi, sin

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float64]
DISTANCES = (5.0, 9.0, 14.0, 20.0, 28.0, 38.0, 50.0, 64.0, 80.0, 98.0)
DIRECTIONS = 24
ANGLES = [2 * pi * turn / DIRECTIONS for turn in range(DIRECTIONS)]
CIRCLE = [(cos(angle), sin(angle)) for angle in ANGLES]
LEADS_FROM = 12.0  # further away than this a name needs a line to its point
PAD = 1.5
STEP = 3.0
OVER_A_LINE, OVER_A_LEADER = 2.0, 30.0


@dataclass(frozen=True)
class Box:
    """A rectangle."""

    left: float
    bottom: float
    right: float
    top: float

    @classmethod
    def around(cls, x: float, y: float, width: float, height: float) -> Box:
        return cls(x - width / 2, y - height / 2, x + width / 2, y + height / 2)

    @property
    def corners(self) -> tuple[float, float, float, float]:
        return self.left, self.bottom, self.right, self.top

    @property
    def centre(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.bottom + self.top) / 2

    def holds(self, other: Box) -> bool:
        return (
            self.left <= other.left
            and self.bottom <= other.bottom
            and self.right >= other.right
            and self.top >= other.top
        )


@dataclass(frozen=True)
class Place:
    """A place that a name may have; ``far`` are the ends of the line to its point, if it is far."""

    box: Box
    cost: float
    far: tuple[tuple[float, float], tuple[float, float]] | None = None

    @cached_property
    def lead(self) -> Pixels | None:
        """Points along that line, [P, 2]: few places are tried far enough to need them."""
        return None if self.far is None else line(*self.far)


def line(*points: tuple[float, float]) -> Pixels:
    """Points along a line through these, [P, 2], closer together than a name is high."""
    parts = [np.empty((0, 2))]
    for (x0, y0), (x1, y1) in pairwise(points):
        number = max(2, int(np.hypot(x1 - x0, y1 - y0) / STEP))
        share = np.linspace(0.0, 1.0, number)[:, None]
        parts.append(np.array([[x0, y0]]) + share * np.array([[x1 - x0, y1 - y0]]))
    return np.concatenate(parts)


def beside(x: float, y: float, width: float, height: float) -> list[Place]:
    """Places around a point, the nearest first; to the right of it where all else is equal."""
    found = []
    for distance in DISTANCES:
        for across, up in CIRCLE:
            centre = (x + across * (width / 2 + distance), y + up * (height / 2 + distance))
            box = Box.around(*centre, width, height)
            end = (min(max(x, box.left), box.right), min(max(y, box.bottom), box.top))
            away = hypot(end[0] - x, end[1] - y)
            far = ((x, y), end) if away > LEADS_FROM else None
            found.append(Place(box, away + 2.0 * (1.0 - across) + abs(up), far))
    return found


def along(y: float, inside: Box, width: float, height: float) -> list[Place]:
    """Places on a level line: above or below it, at its right end before all others."""
    room = inside.right - inside.left - width - 4
    found = []
    for number, share in enumerate((1.0, 0.0, 0.75, 0.25, 0.5)):
        for side, cost in ((1.0, 0.0), (-1.0, 1.0)):
            x = inside.left + 2 + share * room + width / 2
            box = Box.around(x, y + side * (height / 2 + 2), width, height)
            found.append(Place(box, 4.0 * number + cost))
    return found


def arrange(
    options: Sequence[Sequence[Place]], inside: Box, solid: Sequence[Box], lines: Pixels
) -> list[Place | None]:
    """Choose one of each name's places, none over another, over ``solid`` or out of ``inside``.

    Nearer places and those over fewer ``lines`` [P, 2] go first; names without a free place are
    tried first in the next round. None: there is no room for a name.
    """
    near = [sorted((p for p in o if inside.holds(p.box)), key=lambda p: p.cost) for o in options]
    order = sorted(range(len(options)), key=lambda i: len(near[i]))
    best: list[Place | None] = [None] * len(options)
    for _ in range(max(len(options), 1)):
        found = _round(near, order, solid, lines)
        if _rank(found) < _rank(best) or best.count(None) == len(best):
            best = found
        failed = [i for i in order if found[i] is None]
        if not failed:
            break
        order = [*failed, *(i for i in order if found[i] is not None)]
    return best


def _rank(found: Sequence[Place | None]) -> tuple[int, float]:
    return found.count(None), sum(p.cost for p in found if p is not None)


def _round(
    options: Sequence[Sequence[Place]], order: Sequence[int], solid: Sequence[Box], lines: Pixels
) -> list[Place | None]:
    taken, leads = list(solid), np.empty((0, 2))
    found: list[Place | None] = [None] * len(options)
    for i in order:
        place = _cheapest(options[i], taken, lines, leads)
        found[i] = place
        if place is not None:
            taken.append(place.box)
            leads = leads if place.lead is None else np.concatenate([leads, place.lead])
    return found


def _cheapest(
    places: Sequence[Place], taken: Sequence[Box], lines: Pixels, leads: Pixels
) -> Place | None:
    """The free one of the places, nearest first, with the least cost of all."""
    best: tuple[float, Place] | None = None
    for place in places:
        if best is not None and place.cost >= best[0]:
            break
        if _overlaps(place.box, taken):
            continue
        cost = place.cost + OVER_A_LINE * _within(lines, place.box)
        cost += OVER_A_LEADER * bool(_within(leads, place.box))
        if place.lead is not None:
            # The first pixels are over the point's own mark.
            over = sum(_within(place.lead[3:], box, -PAD) for box in taken)
            cost += OVER_A_LEADER * bool(over)
        if best is None or cost < best[0]:
            best = (cost, place)
    return None if best is None else best[1]


def _overlaps(box: Box, taken: Sequence[Box]) -> bool:
    return any(
        box.left < other.right + PAD
        and other.left - PAD < box.right
        and box.bottom < other.top + PAD
        and other.bottom - PAD < box.top
        for other in taken
    )


def _within(points: Pixels, box: Box, pad: float = 0.0) -> int:
    """Number of points in a box."""
    low = (points[:, 0] > box.left - pad) & (points[:, 0] < box.right + pad)
    return int((low & (points[:, 1] > box.bottom - pad) & (points[:, 1] < box.top + pad)).sum())
