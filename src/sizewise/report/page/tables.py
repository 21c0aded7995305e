"""Cells of the tables on the HTML page, and the text of CSV files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from sizewise import words
from sizewise.record.brackets import (
    STOPPED,
    Candidate,
    TuningRecord,
    audit_sentence,
    tuning_sentence,
)
from sizewise.report.comparison.compare import Comparison, SetComparison
from sizewise.report.comparison.contrast import scale_of
from sizewise.report.comparison.pair import Pair
from sizewise.report.comparison.readings import Calibration, likelihood_of, three_readings
from sizewise.report.comparison.strata import Stratum
from sizewise.report.page.setup import batch_of, epochs_of, trained

MOST_PAIRS = 400


@dataclass(frozen=True)
class Cell:
    """A text and the number (or text) that sorts it."""

    text: str
    sort: float | str | None = None


@dataclass(frozen=True)
class PageTable:
    """A table; the first column is its row header, ``numeric`` columns are set flush right."""

    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: list[list[Cell]]
    note: str = ""


def configuration_table(compared: SetComparison) -> PageTable:
    scale = scale_of(compared.test)
    columns = (
        "Configuration", "Parameters", "Weights", "Training", "Per answer", "Seeds",
        "Zero-shot", "Tuned", "Gain", "95 % interval", "Unusable",
    )  # fmt: skip
    rows = []
    for row in compared.everything.to_dict("records"):
        known = number(row["gain"]) is not None
        interval = scale.interval(row["gain_low"], row["gain_high"]) if known else "–"
        rows.append(
            [
                _text(str(row["label"])),
                _cell(words.count, row["params"]),
                _cell(words.size, row["memory_bytes"]),
                _cell(words.seconds, row["train_seconds"]),
                _cell(words.seconds, row["latency_seconds"]),
                _cell("{:.0f}".format, row["seeds"]),
                _cell(scale.value, row["zero_shot"]),
                _cell(scale.value, row["tuned"]),
                _cell(scale.points, row["gain"]),
                Cell(interval, number(row["gain_low"])),
                _cell(words.Scale(True).value, row["unusable"]),
            ]
        )
    return PageTable(columns, (False, *[True] * (len(columns) - 1)), rows)


def training_table(compared: SetComparison) -> PageTable | None:
    """How every tuned configuration was trained; None where nothing was."""
    columns = (
        "Configuration", "Learning rate", "Epochs", "Steps", "Batch", "Examples", "Seeds",
        "Validation loss", "Training",
    )  # fmt: skip
    rows = []
    for arm in trained(compared.test):
        outcome = arm.first.run.outcome
        epochs = epochs_of(outcome)
        rows.append(
            [
                _text(arm.label),
                _cell("{:g}".format, (outcome.config.get("optimizer") or {}).get("lr")),
                Cell("–" if epochs is None else str(epochs), str(epochs)),
                _cell("{:,.0f}".format, arm.cost(lambda run: run.outcome.cost.train_steps)),
                _cell("{:g}".format, batch_of(outcome)),
                _cell("{:,.0f}".format, arm.max_train or None),
                _text(", ".join(map(str, arm.seeds))),
                _cell("{:.4f}".format, arm.validation),
                _cell(words.seconds, arm.train_seconds),
            ]
        )
    if not rows:
        return None
    return PageTable(columns, (False, *[True] * (len(columns) - 1)), rows)


def readings_table(compared: SetComparison) -> PageTable | None:
    """Three numbers per model: as said, with form forgiven, by likelihood; None with one only."""
    readings = three_readings(compared.test)
    if not readings:
        return None
    scale = words.Scale(True)
    rows = []
    for row in compared.everything.to_dict("records"):
        values = [row[f"score_{title.lower().replace(' ', '_')}"] for title in readings]
        rows.append([_text(str(row["label"])), *[_cell(scale.value, v) for v in values]])
    note = f"Likelihood: {name}." if (name := likelihood_of(compared.test)) else ""
    return PageTable(("Model", *readings), (False, *[True] * len(readings)), rows, note)


def calibration_table(found: Sequence[Calibration]) -> PageTable:
    columns = ("Model", "Mean probability", "Right", "Calibration error")
    percent = words.Scale(True).value
    rows = [
        [_text(c.model), *[_cell(percent, v) for v in (c.confidence, c.accuracy, c.error)]]
        for c in found
    ]
    return PageTable(columns, (False, True, True, True), rows)


def run_table(comparison: Comparison) -> PageTable:
    columns = (
        "Run", "Model", "Adapter", "Storage", "Data", "Seed", "Training", "Val. loss",
        "Zero-shot", "Tuned",
    )  # fmt: skip
    rows = []
    for run in comparison.runs:
        outcome = run.outcome
        own, model = outcome.data.name, outcome.model
        base, tuned = outcome.base.get(own), (outcome.tuned or {}).get(own)
        scores = [comparison.score_of(evaluation) for evaluation in (base, tuned)]
        adapter = "–" if model.lora_r is None else f"{model.lora_method} r={model.lora_r}"
        rows.append(
            [
                _text(run.directory.name),
                Cell(model.name, model.params_base),
                Cell(adapter, model.lora_r or 0),
                _text(model.quantization),
                _text(own),
                Cell(str(outcome.seed), outcome.seed),
                _cell(words.seconds, outcome.cost.train_seconds),
                *[_cell("{:.3f}".format, s) for s in (outcome.validation.get("val_loss"), *scores)],
            ]
        )
    return PageTable(columns, (False,) * 5 + (True,) * 5, rows)


def pair_table(compared: SetComparison) -> PageTable:
    scale = scale_of(compared.test)
    columns = (
        "A", "B", "Question", "A scores", "B scores", "Gain", "Interval", "p", "p (corrected)",
        "Test", "d", "Detectable", "Level",
    )  # fmt: skip
    rows = []
    for pair in compared.pairs[:MOST_PAIRS]:
        result = pair.result
        rows.append(
            [
                *map(_text, (pair.a.label, pair.b.label, _question(pair))),
                _cell(scale.value, result.mean_a),
                _cell(scale.value, result.mean_b),
                _cell(scale.points, pair.gain),
                Cell(scale.interval(pair.low, pair.high), pair.low),
                *[
                    _cell(partial(_p_value, at_most=pair.at_floor), p)
                    for p in (result.p_value, pair.p_corrected)
                ],
                _text(result.test),
                Cell(words.signed(result.effect.cohens_d_z, 2), number(result.effect.cohens_d_z)),
                _cell(scale.detectable, result.minimum_detectable_effect),
                _cell(words.level, pair.level),
            ]
        )
    more = len(compared.pairs) - MOST_PAIRS
    note = f"{more} more pairs are in results.json." if more > 0 else ""
    return PageTable(columns, (False,) * 3 + (True,) * 6 + (False, *[True] * 3), rows, note)


def _question(pair: Pair) -> str:
    return f"{pair.question} (named in advance)" if pair.primary else pair.question


def decision_table(compared: SetComparison) -> PageTable | None:
    """How every configuration stands to the best of all; None where nothing is decided."""
    decision, scale = compared.decision, scale_of(compared.test)
    if decision is None:
        return None
    columns = (
        "Configuration", "Scores", "Parameters", "Per answer", "Best in resamples",
        f"Not worse than the best by {decision.points}", "p",
    )  # fmt: skip
    rows = [
        [
            _text(choice.arm.label),
            _cell(scale.value, choice.score),
            _cell(words.count, choice.params),
            _cell(words.seconds, choice.seconds),
            _cell("{:.1%}".format, choice.share_best if decision.says_shares else None),
            _text("shown" if choice.near else "open"),
            _cell(_p_value, choice.p_near),
        ]
        for choice in decision.choices
    ]
    return PageTable(columns, (False, *[True] * 4, False, True), rows)


def strata_table(stratum: Stratum, scale: words.Scale) -> tuple[str, PageTable]:
    models = list(dict.fromkeys(m for level in stratum.levels for m in level.means))
    against = f"Gain over {stratum.against or '–'}"
    columns = (stratum.name, "Examples", *models, against, "95 %", "p (corrected)")
    rows = []
    for level in stratum.levels:
        tested = level.tested
        interval = "–" if tested is None else scale.interval(tested.low, tested.high)
        rows.append(
            [
                _text(level.value),
                Cell(str(level.examples), level.examples),
                *[_cell(scale.value, level.means.get(m)) for m in models],
                _cell(scale.points, tested and tested.gain),
                Cell(interval, None if tested is None else tested.low),
                _cell(_p_value, tested and tested.p),
            ]
        )
    return stratum.name, PageTable(columns, (False, *[True] * (len(columns) - 1)), rows)


FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_text(frame: pd.DataFrame) -> str:
    """A table as CSV; a text that a spreadsheet would run as a formula gets an apostrophe."""

    def plain(cell: Any) -> Any:
        return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell

    return str(frame.map(plain).rename(columns=plain).to_csv(index=False))


def stopped_table(records: Sequence[TuningRecord]) -> PageTable:
    """The candidates that were tried and not kept, with what they had cost."""
    columns = (
        "Stopped", "Learning rate", "At step", "Validation loss", "Of the best kept", "Best kept",
        "Training", "Tokens", "At its end",
    )  # fmt: skip
    rows = []
    loss = "{:.4f}".format
    for kept, tried in (pair for record in records for pair in _beside_the_best(record)):
        name = tried.cell if tried.state == STOPPED else f"{tried.cell} ({tried.state})"
        rows.append(
            [
                _text(name),
                _cell("{:g}".format, tried.lr),
                Cell(f"{tried.step} of {tried.of_steps}" if tried.step else "–", tried.step),
                _cell(loss, tried.value),
                _cell(loss, _beside(kept, tried)),
                Cell(_named(kept, tried), kept.lr if kept else None),
                _cell(words.seconds, tried.seconds),
                _cell(words.count, tried.tokens),
                _cell(loss, tried.final),
            ]
        )
    return PageTable(columns, (False, *[True] * 8), rows, tuning_note(records))


def _beside_the_best(record: TuningRecord) -> Iterator[tuple[Candidate | None, Candidate]]:
    """Every candidate that was not kept, beside the best of its bracket that was."""
    for bracket in record.brackets:
        best = next(iter(bracket.kept), None)
        yield from ((best, tried) for tried in bracket.stopped)


def tuning_note(records: Sequence[TuningRecord]) -> str:
    """What was tried and stopped, and what audits found, in words."""
    return " ".join([*map(tuning_sentence, records), audit_sentence(records)]).strip()


def _beside(kept: Candidate | None, tried: Candidate) -> float | None:
    """The loss of the kept one at the rung where the other was stopped."""
    if kept is None or len(kept.values) < len(tried.values) or not tried.values:
        return kept.value if kept else None
    return kept.values[len(tried.values) - 1]


def _named(kept: Candidate | None, tried: Candidate) -> str:
    """A kept candidate by its rate, and by its configuration where that is another one."""
    if kept is None:
        return "–"
    return f"{kept.lr:g}" if kept.cell == tried.cell else f"{kept.cell}, {kept.lr:g}"


def number(value: Any) -> float | None:
    return None if value is None or value != value else float(value)


def _text(text: str) -> Cell:
    return Cell(text, text)


def _cell(text: Callable[[float], str], value: Any) -> Cell:
    known = number(value)
    return Cell("–" if known is None else text(known), known)


def _p_value(p: float, at_most: bool = False) -> str:
    """A p-value under its heading: ``0.012``; with ``<`` or ``≤`` where it is a bound."""
    return words.p_value(p, at_most).removeprefix("p ").removeprefix("= ")
