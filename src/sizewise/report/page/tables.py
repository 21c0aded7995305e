"""Cells of the tables on the HTML page: what is shown and what it is sorted by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sizewise.report import words
from sizewise.report.comparison.compare import Comparison, SetComparison
from sizewise.report.comparison.strata import Stratum
from sizewise.report.comparison.verdict import scale_of

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
    """One row per configuration, best first."""
    scale = scale_of(compared.test)
    columns = (
        "Configuration", "Parameters", "Memory", "Training", "Per answer", "Seeds",
        "Zero-shot", "Tuned", "Gain", "95 % interval", "Unparsed",
    )  # fmt: skip
    rows = []
    for row in compared.everything.to_dict("records"):
        interval, gain = "–", number(row["gain"])
        if gain is not None:
            interval = scale.interval(row["gain_low"], row["gain_high"])
        rows.append(
            [
                Cell(str(row["label"]), str(row["label"])),
                Cell(words.count(row["params"]), row["params"]),
                Cell(words.size(row["memory_bytes"]), row["memory_bytes"]),
                Cell(words.seconds(number(row["train_seconds"])), number(row["train_seconds"])),
                Cell(words.seconds(number(row["latency_seconds"])), number(row["latency_seconds"])),
                Cell(_whole(row["seeds"]), number(row["seeds"])),
                Cell(scale.value(number(row["zero_shot"])), number(row["zero_shot"])),
                Cell(scale.value(number(row["tuned"])), number(row["tuned"])),
                Cell(scale.difference(gain, unit=False), gain),
                Cell(interval, number(row["gain_low"])),
                Cell(words.Scale(True).value(number(row["unparsed"])), number(row["unparsed"])),
            ]
        )
    return PageTable(columns, (False, *[True] * (len(columns) - 1)), rows)


def run_table(comparison: Comparison) -> PageTable:
    """One row per run."""
    columns = (
        "Run", "Model", "Adapter", "Storage", "Data", "Seed", "Training", "Val. loss",
        "Zero-shot", "Tuned",
    )  # fmt: skip
    rows = []
    for run in comparison.runs:
        outcome = run.outcome
        own, model = outcome.data.name, outcome.model
        base, tuned = outcome.base.get(own), (outcome.tuned or {}).get(own)
        scores = [None if e is None else e.scores.get(outcome.primary) for e in (base, tuned)]
        adapter = "–" if model.lora_r is None else f"{model.lora_method} r={model.lora_r}"
        loss = number(outcome.validation.get("val_loss"))
        rows.append(
            [
                Cell(run.directory.name, run.directory.name),
                Cell(model.name, model.params_base),
                Cell(adapter, model.lora_r or 0),
                Cell(model.quantization, model.quantization),
                Cell(own, own),
                Cell(str(outcome.seed), outcome.seed),
                Cell(words.seconds(outcome.cost.train_seconds), outcome.cost.train_seconds),
                Cell("–" if loss is None else f"{loss:.3f}", loss),
                *[Cell("–" if s is None else f"{s:.3f}", number(s)) for s in scores],
            ]
        )
    return PageTable(columns, (False,) * 5 + (True,) * 5, rows)


def pair_table(compared: SetComparison) -> PageTable:
    """One row per pair of the question."""
    scale = scale_of(compared.test)
    columns = (
        "A", "B", "Question", "A scores", "B scores", "Gain", "95 % interval", "p", "p (Holm)",
        "Test", "d", "Detectable",
    )  # fmt: skip
    rows = []
    for pair in compared.pairs[:MOST_PAIRS]:
        result = pair.result
        d = result.effect.cohens_d_z
        least = result.minimum_detectable_effect
        rows.append(
            [
                Cell(pair.a.label, pair.a.label),
                Cell(pair.b.label, pair.b.label),
                Cell(pair.question, pair.question),
                Cell(scale.value(result.mean_a), result.mean_a),
                Cell(scale.value(result.mean_b), result.mean_b),
                Cell(scale.difference(pair.gain, unit=False), pair.gain),
                Cell(scale.interval(pair.low, pair.high), pair.low),
                Cell(words.p_value(result.p_value).removeprefix("p "), number(result.p_value)),
                Cell(words.p_value(pair.p_corrected).removeprefix("p "), number(pair.p_corrected)),
                Cell(result.test, result.test),
                Cell(words.signed(d, 2), number(d)),
                Cell(scale.difference(least, unit=False).lstrip("+"), number(least)),
            ]
        )
    more = len(compared.pairs) - MOST_PAIRS
    note = f"{more} more pairs are in results.json." if more > 0 else ""
    return PageTable(columns, (False,) * 3 + (True,) * 6 + (False, True, True), rows, note)


def strata_table(stratum: Stratum, scale: words.Scale) -> tuple[str, PageTable]:
    """Name and numbers of one breakdown."""
    models = list(dict.fromkeys(m for level in stratum.levels for m in level.means))
    columns = (stratum.name, "Examples", *models, f"Gain over {stratum.against or '–'}", "95 %")
    rows = []
    for level in stratum.levels:
        known = level.gain is not None and level.low is not None and level.high is not None
        interval = scale.interval(level.low or 0.0, level.high or 0.0) if known else "–"
        rows.append(
            [
                Cell(level.value, level.value),
                Cell(str(level.examples), level.examples),
                *[Cell(scale.value(level.means.get(m)), level.means.get(m)) for m in models],
                Cell(scale.difference(level.gain, unit=False), level.gain),
                Cell(interval, level.low),
            ]
        )
    return stratum.name, PageTable(columns, (False, *[True] * (len(columns) - 1)), rows)


def number(value: Any) -> float | None:
    """A float, or None for what is missing or not a number."""
    return None if value is None or value != value else float(value)


def _whole(value: Any) -> str:
    known = number(value)
    return "–" if known is None else f"{known:.0f}"
