"""A data set, single examples and results as figures and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go

from sizewise import palette
from sizewise.app.evaluations import check_named
from sizewise.composition.compose import compose_run
from sizewise.config import RunConfig
from sizewise.config.data import SPLITS
from sizewise.data.build import build_splits
from sizewise.data.explore import Exploration, explore
from sizewise.models.tokenizer import load_template
from sizewise.record.predictions import Prediction, read_predictions
from sizewise.report.comparison.arms import Arm, TestSet
from sizewise.report.comparison.compare import SetComparison
from sizewise.report.comparison.contrast import scale_of
from sizewise.report.comparison.points import Front
from sizewise.report.comparison.runs import FloatArray
from sizewise.report.views.look import layout
from sizewise.report.views.quality import quality_chart

SAMPLES = 200


def explore_config(config: RunConfig, seed: int = 0) -> Exploration:
    """Describe the data set of a configuration in tokens of its model."""
    template = load_template(config.model)
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
        line = {"color": palette.SPLITS[split], "width": 2}
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
    if any(report.noted.values()):
        lines.append(f"To be noted: {report.notes}.")
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


def example_rows(test: TestSet, arm: Arm) -> list[Row]:
    """Read the answers of an arm (its first seed) beside those of its base."""
    own = _read(arm)
    base = test.zero_shot_of(arm) if arm.tuned else None
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


def _read(arm: Arm) -> list[Prediction]:
    answers = arm.first.answers
    return read_predictions(answers.path) if answers is not None else []


OF_ANSWERS = {
    "Prompt and answer tokens": "tokens",
    "Prompt characters": "prompt_chars",
    "Confidence (mean log-probability)": "confidence",
}


def pareto_figure(compared: SetComparison, front: Front) -> go.Figure:
    """Quality over one cost; every marker's ``customdata`` is the arm's position."""
    test = compared.test
    figure = quality_chart(test, compared.points, front, scale_of(test))
    figure.update_layout(height=380, clickmode="event+select", dragmode="pan")
    return figure


def clicked(event: Any) -> int | None:
    """Return the arm's position that a plotly selection names; None: nothing chosen."""
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
    for arm in test.arms:
        answers = arm.first.answers
        if answers is not None:
            found |= set(answers.scores)
    names = sorted(found - {test.primary})
    return [*([test.primary] if test.primary in found else []), *names, *OF_ANSWERS]


def metric_values(test: TestSet, arm: Arm, name: str) -> FloatArray:
    """Finite values of one arm on the compared examples, all its seeds; empty without any."""
    parts: list[FloatArray] = []
    for member in arm.members:
        if member.answers is None:
            continue
        if name in OF_ANSWERS:
            found = getattr(member.answers, OF_ANSWERS[name])
        elif name in member.answers.scores:
            found = member.answers.scores[name]
        else:
            continue
        parts.append(found[member.answers.positions(test.ids)])
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
                marker={"color": palette.SERIES[place % len(palette.SERIES)]},
                hovertemplate="%{y:.1f} %<extra></extra>",
            )
        )
    figure.update_layout(
        **layout(height=320),
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
