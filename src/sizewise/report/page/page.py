"""The self-contained HTML page: figures, tables and examples in one file that works offline."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from sizewise.report import words
from sizewise.report.comparison.compare import Comparison, SetComparison
from sizewise.report.comparison.contrast import scale_of
from sizewise.report.comparison.points import COSTS
from sizewise.report.page import prose
from sizewise.report.page.results import clean
from sizewise.report.page.tables import (
    calibration_table,
    configuration_table,
    decision_table,
    pair_table,
    readings_table,
    run_table,
    stopped_table,
    strata_table,
)
from sizewise.report.page.terminal import Failure
from sizewise.report.ratings.store import ratings_summary
from sizewise.report.views import charts
from sizewise.report.views.forest import forest_chart
from sizewise.report.views.quality import quality_chart

PACKAGE = "sizewise.report"


def render_page(comparison: Comparison, title: str = "", failures: Sequence[Failure] = ()) -> str:
    """Return the page. Every text from data and models is escaped, in the markup and in scripts."""
    environment = Environment(
        loader=PackageLoader(PACKAGE, "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    sets = [_set_context(number, compared) for number, compared in enumerate(comparison.sets)]
    data = [{"charts": entry.pop("charts"), "sample": entry.pop("sample")} for entry in sets]
    return environment.get_template("report.html.j2").render(
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


def embedded(value: Any) -> Markup:
    """JSON that may stand inside a script element: nothing in it can end the element."""
    text = json.dumps(clean(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _static(name: str) -> Markup:
    path = resources.files(PACKAGE) / "templates" / name
    return Markup(path.read_text(encoding="utf-8"))


def _set_context(number: int, compared: SetComparison) -> dict[str, Any]:
    test, views = compared.test, compared.views
    return {
        "number": number,
        "test": test,
        "verdict": compared.verdict,
        "cards": prose.cards_of(compared),
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
        "charts": {name: _plain(chart) for name, chart in charts_of(compared).items()},
        "sample": _sample(compared),
    }


def charts_of(compared: SetComparison) -> dict[str, go.Figure]:
    test, views, points = compared.test, compared.views, compared.points
    scale, contrast = scale_of(test), views.contrast
    figures: dict[str, go.Figure] = {
        f"quality-{front.cost}": quality_chart(test, points, front, scale)
        for front in compared.fronts
    }
    if compared.pairs:
        figures["forest"] = forest_chart(compared.pairs, scale)
    if views.ranks:
        figures["ranks"] = charts.curves_chart(
            views.ranks, "Rank of the adapter", test, scale, log=True
        )
    if views.learning:
        figures["learning"] = charts.learning_chart(views.learning, test, scale)
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
