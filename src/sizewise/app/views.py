"""A data set, single examples and results as figures and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go

from sizewise.app.evaluations import check_named
from sizewise.composition.compose import compose_run
from sizewise.config import RunConfig
from sizewise.data.build import build_splits
from sizewise.data.explore import SPLITS, Exploration, explore
from sizewise.job.data import make_template
from sizewise.models.tokenizer import load_tokenizer
from sizewise.record.predictions import Prediction, read_predictions
from sizewise.report.comparison.arms import Candidate, TestSet
from sizewise.report.comparison.compare import SetComparison
from sizewise.report.comparison.points import COSTS, Front, Point
from sizewise.report.comparison.runs import FloatArray
from sizewise.report.comparison.verdict import scale_of

SPLIT_COLOURS = {"train": "#0072B2", "validation": "#009E73", "test": "#D55E00"}
SAMPLES = 200


def explore_config(config: RunConfig, seed: int = 0) -> Exploration:
    """Describe the data set of a configuration in tokens of its model."""
    template = make_template(load_tokenizer(config.model), config.model)
    return explore(build_splits(config.dataset), template, SAMPLES, seed)


def explore_overrides(overrides: list[str]) -> Exploration:
    """Describe what ``train.py`` would read with these overrides; raises ConfigError."""
    check_named(overrides, ("dataset", "model"))
    return explore_config(compose_run(overrides))


def length_figure(found: Exploration, part: str) -> go.Figure:
    """Distribution of the tokens of prompts or answers (``part``), one line per split, in %."""
    figure = go.Figure()
    for split, lengths in found.lengths.items():
        histogram = getattr(lengths, f"{part}_histogram")
        total = sum(histogram.counts) or 1
        x: list[float] = []
        y: list[float] = []
        for low, high, count in zip(
            histogram.edges[:-1], histogram.edges[1:], histogram.counts, strict=True
        ):
            x += [low, high]
            y += [100 * count / total] * 2
        line = {"color": SPLIT_COLOURS[split], "width": 2}
        figure.add_trace(go.Scatter(x=x, y=y, mode="lines", name=split, line=line))
    figure.update_layout(
        height=280,
        margin={"l": 50, "r": 12, "t": 8, "b": 44},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        xaxis={"title": {"text": f"tokens of the {part}"}, "rangemode": "tozero"},
        yaxis={"title": {"text": "examples (%)"}, "rangemode": "tozero"},
    )
    return figure


def size_rows(found: Exploration) -> list[dict[str, Any]]:
    """One row per split: examples, groups, token lengths, repeated prompts and answers."""
    rows = []
    for split in SPLITS:
        if split not in found.lengths:
            continue
        lengths, repeated = found.lengths[split], found.repetition[split]
        rows.append(
            {
                "split": split,
                "examples": found.sizes[split],
                "groups": repeated.groups,
                "largest group": repeated.largest_group,
                "prompt tokens (median)": round(lengths.prompt.p50),
                "prompt tokens (longest)": round(lengths.prompt.max),
                "answer tokens (median)": round(lengths.answer.p50),
                "answer tokens (longest)": round(lengths.answer.max),
                "repeated prompts": repeated.prompts,
                "repeated answers": repeated.answers,
            }
        )
    return rows


def leak_sentences(found: Exploration) -> list[str]:
    """Say what is shared between splits and what was done about it."""
    report, tests = found.report, found.sizes.get("test", 0)
    lines = [
        f"{report.duplicates:,} exact repetitions were removed from {report.rows:,} rows.",
        f"{report.shared_groups:,} groups occur in more than one split"
        + (f" ({report.leaking_rows:,} rows leak)." if report.leaking_rows else "."),
        f"A random split of rows would have put the questions of {report.row_split_leak:.1%} of "
        "the test rows into training.",
        f"{found.shared_answers:,} of {tests:,} test answers also are answers in training.",
    ]
    if any(report.filtered.values()):
        lines.append(f"Left out: {report.reasons}.")
    return lines


KINDS = ("all", "tuned worse than base", "tuned better than base", "equal")


@dataclass(frozen=True)
class Row:
    """One example with the answer of a model and, where there is one, that of its base."""

    own: Prediction
    base: Prediction | None

    def gain(self, primary: str, sign: float) -> float | None:
        """How much better than the base's the answer is; None where that cannot be told."""
        if self.base is None or primary not in self.own.scores or primary not in self.base.scores:
            return None
        return sign * (self.own.scores[primary] - self.base.scores[primary])


def example_rows(test: TestSet, candidate: Candidate) -> list[Row]:
    """Read the answers of a candidate (its first seed) beside those of its base."""
    own = _read(candidate)
    base = test.zero_shot_of(candidate) if candidate.tuned else None
    beside = {p.id: p for p in _read(base)} if base is not None else {}
    return [Row(p, beside.get(p.id)) for p in own]


def select(rows: Sequence[Row], test: TestSet, kind: str, text: str = "") -> list[Row]:
    """Filter by how tuned and base compare, and by words in prompt, reference or answer."""
    needle = text.casefold().strip()
    found = []
    for row in rows:
        gain = row.gain(test.primary, test.sign)
        fits = {
            KINDS[1]: gain is not None and gain < 0,
            KINDS[2]: gain is not None and gain > 0,
            KINDS[3]: gain == 0,
        }.get(kind, True)
        own = row.own
        if fits and (
            not needle or needle in f"{own.prompt}\n{own.reference}\n{own.text}".casefold()
        ):
            found.append(row)
    return found


def _read(candidate: Candidate) -> list[Prediction]:
    answers = candidate.first.answers
    return read_predictions(answers.path) if answers is not None else []


ZERO, TUNED = "#0072B2", "#D55E00"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
OWN_FIGURES = {
    "Prompt and answer tokens": "tokens",
    "Prompt characters": "prompt_chars",
    "Confidence (mean log-probability)": "confidence",
}


def pareto_figure(compared: SetComparison, front: Front) -> go.Figure:
    """Quality over one cost; every marker's ``customdata`` is the candidate's position."""
    unit = 100.0 if scale_of(compared.test).percent else 1.0
    known = [p for p in compared.points if p.costs[front.cost] is not None]
    figure = go.Figure()
    ordered = sorted((p for p in known if p.label in front.labels), key=lambda p: _cost(p, front))
    figure.add_trace(
        go.Scatter(
            x=[_cost(p, front) for p in ordered],
            y=[unit * p.score for p in ordered],
            mode="lines",
            line={"color": "#98a2b3", "width": 1.5, "dash": "dot"},
            name="Pareto front",
            hoverinfo="skip",
        )
    )
    for tuned, name in ((False, "zero-shot"), (True, "tuned")):
        chosen = [p for p in known if p.tuned is tuned]
        if chosen:
            figure.add_trace(_markers(compared.test, chosen, front, name, unit))
    positive = all(_cost(p, front) > 0 for p in known)
    percent = " (%)" if unit > 1 else ""
    better = "" if compared.test.sign > 0 else ", lower is better"
    figure.update_layout(
        **_layout(380),
        xaxis={"type": "log" if positive else "linear", "title": {"text": COSTS[front.cost]}},
        yaxis={"title": {"text": escape(compared.test.primary) + percent + better}},
        clickmode="event+select",
        dragmode="pan",
    )
    return figure


def _markers(
    test: TestSet, points: Sequence[Point], front: Front, name: str, unit: float
) -> go.Scatter:
    tuned = name == "tuned"
    low = [unit * (p.score - p.low) if p.low is not None else 0.0 for p in points]
    high = [unit * (p.high - p.score) if p.high is not None else 0.0 for p in points]
    return go.Scatter(
        x=[_cost(p, front) for p in points],
        y=[unit * p.score for p in points],
        error_y={"type": "data", "array": high, "arrayminus": low, "thickness": 1, "width": 0},
        mode="markers",
        marker={
            "size": 12,
            "color": TUNED if tuned else ZERO,
            "symbol": "circle" if tuned else "square",
        },
        name=name,
        text=[escape(p.label) for p in points],
        customdata=[position_of(test, p.candidate) for p in points],
        hovertemplate="%{text}<br>%{y:.3g}<extra></extra>",
    )


def _cost(point: Point, front: Front) -> float:
    value = point.costs[front.cost]
    return float("nan") if value is None else value


def position_of(test: TestSet, candidate: Candidate) -> int:
    """Place of a candidate in its test set."""
    return next(i for i, other in enumerate(test.candidates) if other is candidate)


def clicked(event: Any) -> int | None:
    """Return the candidate's position that a plotly selection names; None: nothing chosen."""
    selection = event.get("selection") if isinstance(event, Mapping) else None
    for point in (selection or {}).get("points", []):
        value = point.get("customdata")
        value = value[0] if isinstance(value, list | tuple) and value else value
        if isinstance(value, int | float):
            return int(value)
    return None


def metric_names(test: TestSet) -> list[str]:
    """Names of everything that has a value per example, the primary score first."""
    found: set[str] = set()
    for candidate in test.candidates:
        answers = candidate.first.answers
        if answers is not None:
            found |= set(answers.scores)
    names = sorted(found - {test.primary})
    return [*([test.primary] if test.primary in found else []), *names, *OWN_FIGURES]


def metric_values(candidate: Candidate, name: str) -> FloatArray:
    """Finite values of one candidate, all its seeds together; empty where it has none."""
    parts: list[FloatArray] = []
    for member in candidate.members:
        if member.answers is None:
            continue
        if name in OWN_FIGURES:
            parts.append(getattr(member.answers, OWN_FIGURES[name]))
        elif name in member.answers.scores:
            parts.append(member.answers.scores[name])
    values = np.concatenate(parts) if parts else np.empty(0)
    return np.asarray(values[np.isfinite(values)], dtype=np.float64)


def histogram_figure(values: Mapping[str, FloatArray], name: str, bins: int = 30) -> go.Figure:
    """Shares of examples by value, one colour per label, in bins that all share.

    Scores that are only 0 or 1 get one bar each.
    """
    figure = go.Figure()
    filled = {label: v for label, v in values.items() if v.size}
    # Bins are counted here: the browser would choose other ones for every model.
    edges, ticks = _edges(filled, bins)
    for place, (label, array) in enumerate(filled.items()):
        widths = np.diff(edges) / len(filled)
        shift = (place - (len(filled) - 1) / 2) * widths
        figure.add_trace(
            go.Bar(
                x=((edges[:-1] + edges[1:]) / 2 + shift).tolist(),
                y=(100 * np.histogram(array, edges)[0] / array.size).tolist(),
                width=(0.92 * widths).tolist(),
                name=escape(label),
                marker={"color": COLOURS[place % len(COLOURS)]},
                hovertemplate="%{y:.1f} %<extra></extra>",
            )
        )
    figure.update_layout(
        **_layout(320),
        barmode="overlay",
        xaxis={"title": {"text": escape(name)}, **ticks},
        yaxis={"title": {"text": "examples (%)"}},
    )
    return figure


def _edges(values: Mapping[str, FloatArray], bins: int) -> tuple[FloatArray, dict[str, Any]]:
    every = np.concatenate([np.empty(0), *values.values()])
    if np.isin(every, (0.0, 1.0)).all():
        return np.array([-0.5, 0.5, 1.5]), {"tickvals": [0, 1], "range": [-0.6, 1.6]}
    return np.histogram_bin_edges(every, bins=bins), {}


def _layout(height: int) -> dict[str, Any]:
    return {
        "height": height,
        "margin": {"l": 56, "r": 16, "t": 8, "b": 48},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "hovermode": "closest",
    }
