"""Agreement of raters, and win rates of blind A/B ratings."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sizewise.errors import StatisticsError
from sizewise.statistics.arrays import FloatArray, fraction
from sizewise.statistics.bootstrap import Interval
from sizewise.statistics.resampling import Groups, units_of

Rating = Hashable | None
TIE = "tie"


@dataclass(frozen=True)
class Agreement:
    """Krippendorff's alpha: 1 is full agreement, 0 that of chance; NaN if it is undefined.

    `units`: rated items with at least two ratings; `ratings`: their ratings.
    """

    alpha: float
    units: int
    ratings: int


@dataclass(frozen=True)
class WinRate:
    """Share of comparisons that A wins, with a Wilson interval.

    `rate` counts a tie as half a win ("half") or leaves ties out ("exclude"). `effective_n` is
    the number of independent ratings that the interval assumes: fewer than were given where
    several raters rated the same pair alike.
    """

    wins: int
    ties: int
    losses: int
    rate: float
    interval: Interval
    effective_n: float


def krippendorff_alpha(ratings: Sequence[Sequence[Rating]]) -> Agreement:
    """Krippendorff's alpha for nominal ratings, one row per rater, one column per item.

    None (or NaN) is a missing rating; items with fewer than two ratings are left out. From the
    coincidence matrix (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", part C).
    NaN where no item has two ratings, or where all ratings are one category: without variation
    there is nothing to agree on.
    """
    codes_RU, n_categories = _coded(ratings)
    coincidence = np.zeros((n_categories, n_categories))
    for codes in codes_RU.T:
        counts = np.bincount(codes[codes >= 0], minlength=n_categories).astype(np.float64)
        given = counts.sum()
        if given >= 2:
            coincidence += (np.outer(counts, counts) - np.diag(counts)) / (given - 1.0)
    totals = coincidence.sum(axis=1)
    n = float(totals.sum())
    units = int(np.sum((codes_RU >= 0).sum(axis=0) >= 2))
    expected = n**2 - float(np.square(totals).sum())
    if expected <= 0.0:
        return Agreement(float("nan"), units, round(n))
    observed = n - float(np.trace(coincidence))
    return Agreement(1.0 - (n - 1.0) * observed / expected, units, round(n))


def cohen_kappa(one: Sequence[str], other: Sequence[str]) -> float:
    """Cohen's kappa (1960) of two raters' categories of the same items.

    NaN where there is no item, or both use one and the same category throughout.
    """
    from sklearn.metrics import cohen_kappa_score

    if not one or len({*one, *other}) < 2:
        return float("nan")
    return float(cohen_kappa_score(list(one), list(other)))


def _coded(ratings: Sequence[Sequence[Rating]]) -> tuple[np.ndarray, int]:
    """Number the categories; −1 is missing."""
    lengths = {len(row) for row in ratings}
    if len(lengths) != 1:
        raise StatisticsError(
            "Every rater needs one entry per item, with None where nothing was rated; found rows "
            f"of {sorted(lengths)} entries."
        )
    numbers: dict[Hashable, int] = {}
    codes = np.full((len(ratings), lengths.pop()), -1, dtype=np.int64)
    for rater, row in enumerate(ratings):
        for item, rating in enumerate(row):
            if rating is not None and rating == rating:
                codes[rater, item] = numbers.setdefault(rating, len(numbers))
    return codes, len(numbers)


def win_rate(
    outcomes: Sequence[str],
    items: Groups | None = None,
    *,
    ties: Literal["half", "exclude"] = "half",
    level: float = 0.95,
) -> WinRate:
    """Win rate of A from outcomes "a", "b" and "tie", one per rating.

    `items`: what each rating rated; ratings of the same item are not independent, and the
    interval then uses n divided by the design effect (Kish 1965), as Korn & Graubard (1998,
    Survey Methodology 24) do for proportions. Interval: Wilson's (statsmodels). Raises
    StatisticsError for other outcomes, or if nothing is left to count.
    """
    outcomes = list(outcomes)
    unknown = sorted(set(outcomes) - {"a", "b", TIE})
    if unknown:
        raise StatisticsError(f"Outcome {unknown[0]!r} is unknown; use 'a', 'b' or 'tie'.")
    from statsmodels.stats.proportion import proportion_confint  # takes seconds to import

    if ties not in ("half", "exclude"):
        raise StatisticsError(f"ties={ties!r} is unknown; use 'half' or 'exclude'.")
    if items is not None and len(items) != len(outcomes):
        raise StatisticsError(f"{len(items)} items for {len(outcomes)} outcomes.")
    counted = [i for i, outcome in enumerate(outcomes) if ties == "half" or outcome != TIE]
    if not counted:
        raise StatisticsError("There is no rating that could be counted (none, or ties only).")
    points = np.array([{"a": 1.0, "b": 0.0, TIE: 0.5}[outcomes[i]] for i in counted])
    rate = float(points.mean())
    effective = _effective_n(points, None if items is None else [items[i] for i in counted])
    tail = 1.0 - fraction(level, "level")
    low, high = proportion_confint(rate * effective, effective, alpha=tail, method="wilson")
    wins, losses = outcomes.count("a"), outcomes.count("b")
    tied = len(outcomes) - wins - losses
    interval = Interval(max(0.0, float(low)), min(1.0, float(high)), level, "Wilson")
    return WinRate(wins, tied, losses, rate, interval, effective)


def _effective_n(points_N: FloatArray, items: Sequence[Hashable] | None) -> float:
    """Number of ratings over the design effect, at least 1 and at most the number of ratings."""
    units = units_of(items, points_N.size)
    if not units.clustered:
        return float(points_N.size)
    rate = float(points_N.mean())
    binomial = rate * (1.0 - rate)
    if units.count < 2 or binomial == 0.0:
        return float(units.count)
    variance = float(units.standard_error(points_N[None, :])[0] ** 2)
    if variance == 0.0:
        return float(points_N.size)
    return float(np.clip(binomial / variance, 1.0, points_N.size))
