"""``sizewise compare``: the comparison of finished runs, wherever they were made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sizewise.config import PricesConfig
from sizewise.report.comparison import compare
from sizewise.report.terminal import show
from sizewise.report.write import report_folder, write_report


def compare_command(
    directories: Sequence[Path], by: Sequence[str], out: Path | None, prices: PricesConfig
) -> None:
    """Print the comparison of all finished runs below ``directories``.

    Args:
        directories: sweep or run directories.
        by: compare pairs that differ in these configuration keys only.
        out: directory for the files of a report; None: print only.
        prices: for the break-even in money.

    Raises:
        OutcomeError: a path is no directory, or ``out`` cannot be written.
        ConfigError: ``by`` names no key of the runs.
    """
    if out is not None:
        report_folder(out)  # before the work, which may take long
    comparison = compare(directories, by, prices)
    paths = write_report(comparison, out, title=out.name) if out is not None else {}
    show(comparison, (), {name: path for name, path in paths.items() if path.is_file()})
