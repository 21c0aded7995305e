"""All files of a report, written into one directory."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sizewise.errors import OutcomeError
from sizewise.files import write_atomically
from sizewise.record.directories import SweepDir
from sizewise.report.comparison.compare import Comparison, SetComparison
from sizewise.report.page.page import render_page
from sizewise.report.page.results import results_text
from sizewise.report.page.tables import csv_text, latex_tables, markdown_tables
from sizewise.report.page.terminal import Failure
from sizewise.report.views.pictures import paired_differences, save, size_versus_quality

PICTURE = "size_vs_quality.png"


def report_folder(directory: Path) -> None:
    """Make the folder of a report.

    Raises:
        OutcomeError: it cannot be made, or nothing can be written into it.
    """
    with _in_words(directory):
        directory.mkdir(parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK):
            raise PermissionError(0, "no permission to write")


@contextmanager
def _in_words(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutcomeError(
            f"The report cannot be written into {directory}: {error.strerror or error}. "
            "Choose a folder you can write to (sizewise compare … --out FOLDER)."
        ) from error


def write_report(
    comparison: Comparison, directory: Path, failures: Sequence[Failure] = (), title: str = ""
) -> dict[str, Path]:
    """Write every file of the report and return their paths by name.

    ``table``: comparison.csv (configurations, best first), ``runs``: runs.csv, ``results``:
    results.json, ``picture``: the PNG of size against quality, ``report``: the HTML page.

    Raises:
        OutcomeError: the files cannot be written there.
    """
    report_folder(directory)
    with _in_words(directory):
        return _write(comparison, directory, failures, title)


def _write(
    comparison: Comparison, directory: Path, failures: Sequence[Failure], title: str
) -> dict[str, Path]:
    paths = {
        "table": directory / "comparison.csv",
        "runs": directory / "runs.csv",
        "results": SweepDir(directory).results,
        "picture": directory / PICTURE,
        "report": SweepDir(directory).page,
    }
    write_atomically(paths["table"], csv_text(comparison.table))
    write_atomically(paths["runs"], csv_text(comparison.runs_table))
    write_atomically(paths["results"], results_text(comparison))
    _pictures(comparison, directory)
    _tables(comparison, directory)
    write_atomically(paths["report"], render_page(comparison, title, failures))
    return paths


def _pictures(comparison: Comparison, directory: Path) -> None:
    if not comparison.sets:
        return
    figures = directory / "figures"
    figures.mkdir(exist_ok=True)
    for compared in comparison.sets:
        name = file_name(compared, comparison)
        scatter = size_versus_quality(compared.test, compared.points)
        forest = paired_differences(compared.test, compared.pairs)
        for suffix in (".png", ".svg"):
            save(scatter, figures / f"size_vs_quality{name}{suffix}")
            save(forest, figures / f"paired_differences{name}{suffix}")
        if compared is comparison.sets[0]:
            shutil.copyfile(figures / f"size_vs_quality{name}.png", directory / PICTURE)


def _tables(comparison: Comparison, directory: Path) -> None:
    if not comparison.sets:
        return
    (directory / "tables").mkdir(exist_ok=True)
    for compared in comparison.sets:
        name = f"comparison{file_name(compared, comparison)}"
        write_atomically(directory / "tables" / f"{name}.tex", latex_tables(compared))
        write_atomically(directory / "tables" / f"{name}.md", markdown_tables(compared))


def file_name(compared: SetComparison, comparison: Comparison) -> str:
    """Part of a file's name that tells test sets apart; empty where there is one only."""
    if len(comparison.sets) == 1:
        return ""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", compared.test.dataset).strip("-")
    return f"_{plain}_{compared.test.fingerprint[:6]}"
