"""The self-contained HTML page: figures, tables and examples in one file that works offline."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from sizewise import words
from sizewise.report.comparison.compare import Comparison, SetComparison
from sizewise.report.comparison.contrast import scale_of
from sizewise.report.comparison.points import COSTS, best_points
from sizewise.report.page import prose
from sizewise.report.page.paper import latex_tables
from sizewise.report.page.results import clean
from sizewise.report.page.setup import setup_of
from sizewise.report.page.tables import (
    calibration_table,
    configuration_table,
    decision_table,
    pair_table,
    readings_table,
    run_table,
    stopped_table,
    strata_table,
    training_table,
)
from sizewise.report.page.terminal import Failure
from sizewise.report.ratings.store import ratings_summary
from sizewise.report.views import charts
from sizewise.report.views.forest import forest_chart, forest_notes, forest_rows
from sizewise.report.views.look import MOST_NAMES, colours_of
from sizewise.report.views.pictures import paired_differences, size_versus_quality, svg_text
from sizewise.report.views.quality import quality_chart
from sizewise.report.views.training import (
    LOGGED,
    MOST_ARMS,
    TrainingCurve,
    logged_in,
    training_chart,
    training_curves,
)

PACKAGE = "sizewise.report"
Stills = Mapping[str, str]  # SVG documents by the name of the picture


def render_page(
    comparison: Comparison,
    title: str = "",
    failures: Sequence[Failure] = (),
    stills: Sequence[Stills] | None = None,
) -> str:
    """Return the page. Every text from data and models is escaped, in the markup and in scripts.

    ``stills``: the pictures of each test set where they are drawn already.
    """
    pictures = stills or [stills_of(compared) for compared in comparison.sets]
    both = zip(comparison.sets, pictures, strict=True)
    sets = [_set_context(number, *entry) for number, entry in enumerate(both)]
    data = [{name: entry.pop(name) for name in ("charts", "sample", "latex")} for entry in sets]
    return _template().render(
        title=title or "comparison",
        comparison=comparison,
        sets=sets,
        runs=run_table(comparison),
        stopped=stopped_table(comparison.tuning) if comparison.tuning else None,
        failures=failures,
        ratings=ratings_summary(
            {d for r in comparison.runs for d in (r.directory, *r.directory.resolve().parents[:2])},
            {r.outcome.run_id for r in comparison.runs},
        ),
        words=words,
        css=_static("report.css"),
        script=_static("report.js"),
        plotly=Markup(get_plotlyjs()),
        data=embedded(data),
    )


@cache
def _template() -> Template:
    """The page's template, compiled once."""
    environment = Environment(
        loader=PackageLoader(PACKAGE, "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("report.html.j2")


def embedded(value: Any) -> Markup:
    """JSON that may stand inside a script element: nothing in it can end the element."""
    text = json.dumps(clean(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _static(name: str) -> Markup:
    path = resources.files(PACKAGE) / "templates" / name
    return Markup(path.read_text(encoding="utf-8"))


def stills_of(compared: SetComparison) -> Stills:
    """The pictures that stand in for the charts where scripts are off, as SVG."""
    return {
        "size_vs_quality": svg_text(size_versus_quality(compared.test, compared.points)),
        "paired_differences": svg_text(paired_differences(compared.test, compared.pairs)),
    }


def _base64(svg: str) -> str:
    return b64encode(svg.encode()).decode("ascii")


def _set_context(number: int, compared: SetComparison, stills: Stills) -> dict[str, Any]:
    test, views = compared.test, compared.views
    curves, rows = training_curves(test), forest_rows(compared.pairs)
    return {
        "number": number,
        "test": test,
        "verdict": compared.verdict,
        "answer": prose.plain_answer(compared),
        "cards": prose.cards_of(compared),
        "stills": {name: _base64(svg) for name, svg in stills.items()},
        "unnamed": _unnamed(compared),
        "forest_notes": forest_notes(rows),
        "setup": setup_of(test),
        "trained": training_table(compared),
        "logged": [(name, LOGGED[name]) for name in logged_in(curves)],
        "curves": MOST_ARMS,
        "tested": len(compared.pairs),
        "drawn": sum(row.pair is not None for row in rows),
        "warnings": compared.warnings,
        "data": prose.data_sentences(test),
        "fronts": compared.fronts,
        "costs": COSTS,
        "views": views,
        "strata": [strata_table(s, scale_of(test)) for s in views.strata],
        "configurations": configuration_table(compared),
        "pairs": pair_table(compared),
        "decision": compared.decision,
        "choices": decision_table(compared),
        "left_out": compared.left_out,
        "scaling": prose.scaling_sentence(test, views),
        "learning": prose.learning_sentences(views),
        "hybrid": prose.hybrid_sentence(test, views),
        "readings": readings_table(compared),
        "calibration": calibration_table(views.calibration) if views.calibration else None,
        "paid_back": prose.paid_back_sentences(compared.paid_back),
        "charts": {
            name: _plain(chart)
            for name, chart in (charts_of(compared) | training_charts(curves)).items()
        },
        "sample": _sample(compared),
        "latex": latex_tables(compared),
    }


def _unnamed(compared: SetComparison) -> int:
    """Number of points without a name in the picture of the question."""
    known = [p for p in compared.points if p.costs["params"] is not None]
    return len(known) - len(best_points(known, compared.test.sign, MOST_NAMES))


def training_charts(curves: Sequence[TrainingCurve]) -> dict[str, go.Figure]:
    return {f"training-{name}": training_chart(curves, name) for name in logged_in(curves)}


def charts_of(compared: SetComparison) -> dict[str, go.Figure]:
    test, views, points = compared.test, compared.views, compared.points
    scale, contrast, colours = scale_of(test), views.contrast, colours_of(points)
    figures: dict[str, go.Figure] = {
        f"quality-{front.cost}": quality_chart(test, points, front, scale)
        for front in compared.fronts
    }
    if compared.pairs:
        figures["forest"] = forest_chart(compared.pairs, scale)
    if views.ranks:
        figures["ranks"] = charts.curves_chart(
            views.ranks, "Rank of the adapter", test, scale, log=True, colours=colours
        )
    if views.learning:
        figures["learning"] = charts.learning_chart(views.learning, test, scale, colours)
    if contrast is not None:
        figures |= {
            f"strata-{i}": charts.strata_chart(s, contrast, scale)
            for i, s in enumerate(views.strata)
        }
        if views.scaling is not None:
            figures["scaling"] = charts.scaling_chart(views.scaling, test, points, contrast, scale)
        if views.hybrid is not None:
            figures["hybrid"] = charts.hybrid_chart(views.hybrid, scale)
    if views.calibration:
        figures["calibration"] = charts.calibration_chart(views.calibration)
    figures |= {f"confusion-{i}": charts.confusion_chart(c) for i, c in enumerate(views.confusion)}
    return figures


def _plain(figure: go.Figure) -> Mapping[str, Any]:
    figure.layout.template = None
    found: Mapping[str, Any] = json.loads(figure.to_json())
    return {"data": found["data"], "layout": found["layout"]}


def _sample(compared: SetComparison) -> dict[str, Any]:
    sample = compared.views.sample
    shown = {name: getattr(sample, name) for name in ("models", "tuned", "base", "rows")}
    return {**shown, "sign": compared.test.sign, "percent": scale_of(compared.test).percent}
