"""Training curves: what every fit logged of itself, step by step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import floor, log10
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from sizewise.palette import SERIES
from sizewise.record.directories import RunDir
from sizewise.record.history import read_history
from sizewise.report.comparison.arms import TestSet
from sizewise.report.comparison.selection import validation_order
from sizewise.report.views.look import DASHES, axis, layout

LOGGED = {
    "val_loss": "Validation loss",
    "train_loss": "Training loss",
    "lr": "Learning rate",
    "grad_norm": "Norm of the gradient",
}
MOST_ARMS, MOST_POINTS = 12, 200


@dataclass(frozen=True)
class Course:
    """One logged value over optimiser steps."""

    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class TrainingCurve:
    """What one fit logged: ``courses`` by the names of ``LOGGED``, empty ones left out."""

    label: str
    seed: int | None
    courses: Mapping[str, Course]


def training_curve(run: Path, label: str = "", seed: int | None = None) -> TrainingCurve:
    """Read the history of a run, finished or not; long ones are thinned out evenly."""
    found: dict[str, list[tuple[int, float]]] = {name: [] for name in LOGGED}
    for line in read_history(RunDir(run).history):
        for name in found.keys() & line.values.keys():
            if line.step is not None:
                found[name].append((line.step, float(line.values[name])))
    courses = {name: _course(found[name]) for name in LOGGED if found[name]}
    return TrainingCurve(label or run.name, seed, courses)


def _course(points: Sequence[tuple[int, float]]) -> Course:
    every = -(-len(points) // MOST_POINTS)
    kept = [*points[:-1:every], points[-1]]
    return Course(tuple(step for step, _ in kept), tuple(value for _, value in kept))


def training_curves(test: TestSet) -> list[TrainingCurve]:
    """The fits behind a test set, all seeds of the twelve arms with the lowest validation loss."""
    arms = sorted((arm for arm in test.arms if arm.has_seeds), key=validation_order)[:MOST_ARMS]
    curves = [
        training_curve(member.run.directory, arm.label, member.run.outcome.seed)
        for arm in arms
        for member in arm.members
    ]
    return [curve for curve in curves if curve.courses]


def logged_in(curves: Iterable[TrainingCurve]) -> list[str]:
    """The names of ``LOGGED`` that any of the curves has."""
    there = {name for curve in curves for name in curve.courses}
    return [name for name in LOGGED if name in there]


def training_chart(curves: Sequence[TrainingCurve], name: str) -> go.Figure:
    """One logged value over steps: a line per seed, colour and dash by configuration."""
    labels = list(dict.fromkeys(curve.label for curve in curves))
    figure = go.Figure()
    named: set[str] = set()
    for curve in curves:
        course = curve.courses.get(name)
        if course is None:
            continue
        number = labels.index(curve.label)
        figure.add_trace(_trace(curve, course, number, first=curve.label not in named))
        named.add(curve.label)
    values = [v for curve in curves if name in curve.courses for v in curve.courses[name].values]
    # From the untrained adapter on, losses fall by more than a plain axis can show.
    log = name != "lr" and bool(values) and min(values) > 0
    more = {"type": "log", **_ticks(min(values), max(values))} if log else {}
    y = axis(LOGGED[name], **more)
    figure.update_layout(**layout(height=360, xaxis=axis("Optimiser step"), yaxis=y))
    return figure


def _ticks(low: float, high: float) -> dict[str, Any]:
    """1, 2, 5 of every power of ten in the range, each with its whole number."""
    powers = range(floor(log10(low)), floor(log10(high)) + 1)
    ticks = [step * 10.0**power for power in powers for step in (1, 2, 5)]
    shown = [tick for tick in ticks if 0.8 * low <= tick <= 1.25 * high]
    shown = shown if len(shown) <= 10 else [tick for tick in shown if f"{tick:e}"[0] == "1"]
    return {"tickvals": shown, "ticktext": [f"{tick:g}" for tick in shown]}


def _trace(curve: TrainingCurve, course: Course, number: int, first: bool) -> go.Scatter:
    seed = "" if curve.seed is None else f", seed {curve.seed}"
    return go.Scatter(
        x=list(course.steps),
        y=[float(f"{value:.5g}") for value in course.values],
        mode="lines+markers" if len(course.steps) < 20 else "lines",
        name=escape(curve.label),
        legendgroup=str(number),
        showlegend=first,
        line={
            "color": SERIES[number % len(SERIES)],
            "width": 1.6,
            "dash": DASHES[number // len(SERIES) % len(DASHES)],
        },
        marker={"size": 5},
        hovertemplate=f"<b>{escape(curve.label)}</b>{seed}<br>step %{{x}}: %{{y}}<extra></extra>",
    )
