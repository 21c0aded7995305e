"""All files of a report, written into one directory."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from sizewise.errors import OutcomeError
from sizewise.files import write_atomically
from sizewise.record.directories import SweepDir
from sizewise.report.comparison.compare import Comparison, SetComparison
from sizewise.report.page.page import render_page
from sizewise.report.page.paper import latex_tables, markdown_tables
from sizewise.report.page.results import results_text
from sizewise.report.page.tables import csv_text
from sizewise.report.page.terminal import Failure
from sizewise.report.views.pictures import paired_differences, save, size_versus_quality

PICTURE = "size_vs_quality.png"


def report_folder(directory: Path) -> None:
    """Make the folder of a report; raises OutcomeError if it cannot be written into."""
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
    paths = {
        "table": directory / "comparison.csv",
        "runs": directory / "runs.csv",
        "results": SweepDir(directory).results,
        "picture": directory / PICTURE,
        "report": SweepDir(directory).page,
    }
    with _in_words(directory):
        write_atomically(paths["table"], csv_text(comparison.table))
        write_atomically(paths["runs"], csv_text(comparison.runs_table))
        write_atomically(paths["results"], results_text(comparison))
        stills = [
            _for_a_paper(compared, directory, file_name(compared, comparison))
            for compared in comparison.sets
        ]
        if comparison.sets:
            name = f"size_vs_quality{file_name(comparison.sets[0], comparison)}.png"
            shutil.copyfile(directory / "figures" / name, paths["picture"])
        write_atomically(paths["report"], render_page(comparison, title, failures, stills))
    return paths


def _for_a_paper(compared: SetComparison, directory: Path, name: str) -> dict[str, str]:
    """Write pictures and tables; return the SVG of those as wide as a page."""
    pictures, tables = directory / "figures", directory / "tables"
    for folder in (pictures, tables):
        folder.mkdir(exist_ok=True)
    test, points, pairs = compared.test, compared.points, compared.pairs
    stills = {}
    for picture, draw in (
        ("size_vs_quality", partial(size_versus_quality, test, points)),
        ("paired_differences", partial(paired_differences, test, pairs)),
    ):
        wide, column = draw(), draw(column=True)
        for suffix in (".png", ".svg", ".pdf"):
            save(wide, pictures / f"{picture}{name}{suffix}")
        for suffix in (".svg", ".pdf"):
            save(column, pictures / f"{picture}{name}_column{suffix}")
        stills[picture] = (pictures / f"{picture}{name}.svg").read_text(encoding="utf-8")
    write_atomically(tables / f"comparison{name}.tex", latex_tables(compared))
    write_atomically(tables / f"comparison{name}.md", markdown_tables(compared))
    return stills


def file_name(compared: SetComparison, comparison: Comparison) -> str:
    """Part of a file's name that tells test sets apart; empty where there is one only."""
    if len(comparison.sets) == 1:
        return ""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", compared.test.dataset).strip("-")
    test = compared.test
    name = f"_{plain}_{test.fingerprint[:6]}"
    same = [
        s.test for s in comparison.sets
        if (s.test.dataset, s.test.fingerprint) == (test.dataset, test.fingerprint)
    ]  # fmt: skip
    if len(same) == 1:
        return name
    return f"{name}_{re.sub(r'[^A-Za-z0-9]+', '-', test.said)}-{test.direction}"
