"""Cells of the tables on the HTML page, and tables for a paper: LaTeX and Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sizewise.report import words
from sizewise.report.comparison.compare import Comparison, SetComparison
from sizewise.report.comparison.contrast import scale_of
from sizewise.report.comparison.readings import Calibration, likelihood_of, three_readings
from sizewise.report.comparison.strata import Stratum

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
        "A", "B", "Question", "A scores", "B scores", "Gain", "95 % interval", "p", "p (Holm)",
        "Test", "d", "Detectable",
    )  # fmt: skip
    rows = []
    for pair in compared.pairs[:MOST_PAIRS]:
        result = pair.result
        rows.append(
            [
                *map(_text, (pair.a.label, pair.b.label, pair.question)),
                _cell(scale.value, result.mean_a),
                _cell(scale.value, result.mean_b),
                _cell(scale.points, pair.gain),
                Cell(scale.interval(pair.low, pair.high), pair.low),
                *[_cell(_p_value, p) for p in (result.p_value, pair.p_corrected)],
                _text(result.test),
                Cell(words.signed(result.effect.cohens_d_z, 2), number(result.effect.cohens_d_z)),
                _cell(lambda v: scale.points(v).lstrip("+"), result.minimum_detectable_effect),
            ]
        )
    more = len(compared.pairs) - MOST_PAIRS
    note = f"{more} more pairs are in results.json." if more > 0 else ""
    return PageTable(columns, (False,) * 3 + (True,) * 6 + (False, True, True), rows, note)


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
                Cell(interval, tested and tested.low),
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


def number(value: Any) -> float | None:
    return None if value is None or value != value else float(value)


def _text(text: str) -> Cell:
    return Cell(text, text)


def _cell(text: Callable[[float], str], value: Any) -> Cell:
    known = number(value)
    return Cell("–" if known is None else text(known), known)


def _p_value(p: float) -> str:
    return words.p_value(p).removeprefix("p ")


LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "−": "$-$", "–": "--", "<": r"\textless{}", ">": r"\textgreater{}", "∞": r"$\infty$",
}  # fmt: skip
CONFIGURATION_COLUMNS = (0, 1, 2, 3, 5, 6, 7, 8, 9)
PAIR_COLUMNS = (0, 1, 3, 4, 5, 6, 8)


def latex_tables(compared: SetComparison) -> str:
    """Configurations and pairs as two ``table`` environments (packages booktabs, array)."""
    configurations, pairs = configuration_table(compared), pair_table(compared)
    caption = _caption(compared)
    first = _latex(configurations, CONFIGURATION_COLUMNS, caption)
    if not pairs.rows:
        return first
    about = "Paired differences with 95\\,\\% bootstrap intervals; p after Holm's correction."
    return first + "\n" + _latex(pairs, PAIR_COLUMNS, about)


def markdown_tables(compared: SetComparison) -> str:
    """Verdict, configurations and pairs as Markdown."""
    scale = scale_of(compared.test)
    parts = [
        f"## {_markdown_text(compared.test.dataset)}",
        f"**{compared.verdict.headline}.** {_markdown_text(compared.verdict.sentence)}",
        _markdown(configuration_table(compared), CONFIGURATION_COLUMNS),
    ]
    pairs = pair_table(compared)
    if pairs.rows:
        parts.append(_markdown(pairs, PAIR_COLUMNS))
    unit = "percentage points" if scale.percent else "the unit of the score"
    parts.append(f"Gains in {unit}, with 95 % bootstrap intervals paired on the test examples.")
    parts += [f"- {_markdown_text(warning)}" for warning in compared.warnings]
    return "\n\n".join(parts) + "\n"


def _caption(compared: SetComparison) -> str:
    test = compared.test
    text = f"{test.primary} on {test.dataset} ({test.size}), best first; gains over the own base"
    return latex_text(text) + " with 95\\,\\% bootstrap intervals."


def _rows(table: PageTable, columns: Sequence[int], text: Callable[[str], str]) -> list[list[str]]:
    return [[text(row[c].text) for c in columns] for row in table.rows]


def _latex(table: PageTable, columns: Sequence[int], caption: str) -> str:
    align = "".join("r" if table.numeric[c] else "l" for c in columns)
    head = " & ".join(latex_text(table.columns[c]) for c in columns)
    body = "\n".join("    " + " & ".join(r) + r" \\" for r in _rows(table, columns, latex_text))
    return (
        "\\begin{table}\n  \\centering\\small\n"
        f"  \\caption{{{caption}}}\n  \\begin{{tabular}}{{{align}}}\n    \\toprule\n"
        f"    {head} \\\\\n    \\midrule\n{body}\n    \\bottomrule\n"
        "  \\end{tabular}\n\\end{table}\n"
    )


def latex_text(text: str) -> str:
    """Escape what LaTeX would read as a command."""
    return "".join(LATEX.get(character, character) for character in text)


def _markdown(table: PageTable, columns: Sequence[int]) -> str:
    head = "| " + " | ".join(_markdown_text(table.columns[c]) for c in columns) + " |"
    line = "|" + "|".join(" ---: " if table.numeric[c] else " --- " for c in columns) + "|"
    rows = ["| " + " | ".join(r) + " |" for r in _rows(table, columns, _markdown_text)]
    return "\n".join([head, line, *rows])


def _markdown_text(text: str) -> str:
    """Escape what Markdown (or HTML inside it) would read as markup."""
    for character in "\\`*_|[]":
        text = text.replace(character, "\\" + character)
    return text.replace("<", "&lt;").replace(">", "&gt;").replace("\n", " ")
