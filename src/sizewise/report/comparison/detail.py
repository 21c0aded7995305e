"""The detailed views of one test set, around the models of the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sizewise.config import PricesConfig
from sizewise.report.comparison.arms import TestSet
from sizewise.report.comparison.curves import (
    Curve,
    LearningCurve,
    learning_curves,
    rank_curves,
    scaling_of,
)
from sizewise.report.comparison.economy import PaidBack, hybrid_of, paid_back
from sizewise.report.comparison.examples import Sample, draw_sample
from sizewise.report.comparison.points import Point
from sizewise.report.comparison.strata import Confusion, Stratum, confusions, strata_of
from sizewise.report.comparison.verdict import Focus, Verdict, find_focus
from sizewise.statistics.routing import RoutingCurve
from sizewise.statistics.scaling import ScalingMatch


@dataclass(frozen=True)
class Views:
    """What is shown beside table and verdict; what the runs do not allow is None or empty."""

    focus: Focus | None
    strata: list[Stratum]
    ranks: list[Curve]
    learning: list[LearningCurve]
    scaling: ScalingMatch | None
    hybrid: RoutingCurve | None
    paid_back: list[PaidBack]
    confusion: list[Confusion]
    sample: Sample


def make_views(
    test: TestSet,
    points: Sequence[Point],
    verdict: Verdict,
    prices: PricesConfig | None = None,
    seed: int = 0,
) -> Views:
    """Compute the views that the runs of a test set allow."""
    focus = find_focus(test, verdict)
    sample = draw_sample(test, focus, seed)
    if focus is None:
        return Views(None, [], [], [], None, None, [], [], sample)
    return Views(
        focus=focus,
        strata=strata_of(test, focus, seed),
        ranks=rank_curves(test, points),
        learning=learning_curves(test, points, focus, seed),
        scaling=scaling_of(test, focus, seed),
        hybrid=hybrid_of(test, focus, seed),
        paid_back=paid_back(focus, prices),
        confusion=confusions(test, [c for c in (focus.base, focus.small) if c is not None]),
        sample=sample,
    )
