"""The comparison on the terminal: a table by quality, the verdict, the failures, the paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from sizewise import words
from sizewise.report.comparison.compare import Comparison, SetComparison
from sizewise.report.comparison.contrast import scale_of
from sizewise.report.page.prose import paid_back_sentences
from sizewise.report.page.tables import number, stopped_table

STYLES = {"shown": "bold green", "open": "bold"}  # by tone, else yellow
MOST_ROWS = 40
COLUMNS = ("params", "memory", "training", "answer", "zero-shot", "tuned", "gain (95 %)")
WIDE, ONLY_WIDE = 110, ("training", "answer")
NO_TERMINAL = 140  # all columns, and labels of 50 characters on one line


class Failure(Protocol):
    """A job that failed: where, why in one line, and the log that tells the whole story."""

    run_dir: str
    reason: str
    log: str


def wide_console(width: int = NO_TERMINAL) -> Console:
    """Standard output; in a file or a pipe, which has no width, wide enough for everything.

    ``:name:`` stays what it is, and no picture is put in its place.
    """
    console = Console(emoji=False)
    if console.is_terminal or console.width >= width:
        return console
    return Console(width=width, emoji=False)


def show(
    comparison: Comparison,
    failures: Sequence[Failure] = (),
    paths: Mapping[str, Path] | None = None,
    console: Console | None = None,
) -> None:
    """Print tables, verdicts, problems, failures and where the files are."""
    console = console or wide_console()
    for compared in comparison.sets:
        console.print(_table(compared, console.width))
        _verdict(console, compared)
    if not comparison.sets:
        console.print(f"[bold]{words.literal(comparison.verdict.sentence)}[/]")
    _tuning(console, comparison)
    for problem in comparison.problems:
        console.print(
            f"[yellow]Not used:[/] {words.literal(problem.where)}: {words.literal(problem.reason)}"
        )
    _failures(console, failures)
    for name, path in (paths or {}).items():
        console.print(f"{name}: {words.literal(path)}", soft_wrap=True)


def _table(compared: SetComparison, width: int) -> Table:
    test, frame = compared.test, compared.everything
    scale = scale_of(test)
    title = f"{test.dataset} · {test.primary} · {test.size}"
    table = Table(title=words.literal(title), title_justify="left", header_style="bold")
    table.box, table.pad_edge = SIMPLE_HEAD, False
    table.add_column("", overflow="fold", min_width=14)
    columns = [name for name in COLUMNS if width >= WIDE or name not in ONLY_WIDE]
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for row in frame.head(MOST_ROWS).to_dict("records"):
        cells = _cells(row, scale)
        table.add_row(_name(row), *(cells[name] for name in columns))
    if len(frame) > MOST_ROWS:
        table.caption = f"{len(frame) - MOST_ROWS} more in comparison.csv"
    return table


def _name(row: Mapping[Any, Any]) -> str:
    several = (number(row["seeds"]) or 0) > 1
    return words.literal(str(row["label"]) + (f" ({int(row['seeds'])} seeds)" if several else ""))


def _cells(row: Mapping[Any, Any], scale: words.Scale) -> dict[str, str]:
    gain = scale.points(row["gain"])
    if number(row["gain"]) is not None:
        interval = scale.interval(row["gain_low"], row["gain_high"])
        gain += f" ({interval.replace('+', '')})"
    return {
        "params": words.count(row["params"]),
        "memory": words.size(row["memory_bytes"]),
        "training": words.seconds(row["train_seconds"]),
        "answer": words.seconds(row["latency_seconds"]),
        "zero-shot": scale.value(row["zero_shot"]),
        "tuned": scale.value(row["tuned"]),
        "gain (95 %)": gain,
    }


def _verdict(console: Console, compared: SetComparison) -> None:
    verdict = compared.verdict
    style = STYLES.get(verdict.tone, "bold yellow")
    console.print(
        f"[{style}]{words.literal(verdict.headline)}.[/] {words.literal(verdict.sentence)}"
    )
    for sentence in paid_back_sentences(compared.paid_back):
        console.print(f"Break-even. {words.literal(sentence)}")
    if compared.decision is not None:
        console.print(f"Decision. {words.literal(' '.join(compared.decision.sentences))}")
    for warning in (*compared.left_out, *compared.warnings):
        console.print(f"  [dim]•[/] {words.literal(warning)}")
    console.print()


def _tuning(console: Console, comparison: Comparison) -> None:
    """What was tried and stopped on the way, where learning rates were tuned."""
    if not comparison.tuning:
        return
    stopped = stopped_table(comparison.tuning)
    table = Table(title="Stopped at a rung", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name, numeric in zip(stopped.columns, stopped.numeric, strict=True):
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in stopped.rows[:MOST_ROWS]:
        table.add_row(*(words.literal(cell.text) for cell in row))
    if stopped.rows:
        console.print(table)
    console.print(words.literal(stopped.note))
    console.print()


def _failures(console: Console, failures: Sequence[Failure]) -> None:
    if failures:
        console.print(f"[bold red]{words.plural(len(failures), 'job')} failed:[/]")
    for failure in failures:
        console.print(
            f"  {words.literal(failure.run_dir)}: {words.literal(failure.reason)}", soft_wrap=True
        )
        console.print(f"    log: {words.literal(failure.log)}", soft_wrap=True)
