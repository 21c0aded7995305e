"""A data set as figures and tables: token lengths, repetitions, leaks, labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import plotly.graph_objects as go

from sizewise.config import RunConfig
from sizewise.config.compose import compose_run
from sizewise.data.build import build_splits
from sizewise.data.explore import SPLITS, Exploration, explore
from sizewise.job.tasks import make_template
from sizewise.models.tokenizer import load_tokenizer

COLOURS = {"train": "#0072B2", "validation": "#009E73", "test": "#D55E00"}
SAMPLES = 200


def explore_config(config: RunConfig, seed: int = 0) -> Exploration:
    """Describe the data set of a configuration in tokens of its model."""
    template = make_template(load_tokenizer(config.model), config.model)
    return explore(build_splits(config.dataset), template, SAMPLES, seed)


def explore_overrides(overrides: list[str]) -> Exploration:
    """Describe what ``train.py`` would read with these overrides; raises ConfigError."""
    return explore_config(replace(compose_run(overrides)))


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
        line = {"color": COLOURS[split], "width": 2}
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
