"""Of a report what programs read, without the pictures and the page that take seconds."""

from __future__ import annotations

from pathlib import Path

from sizewise.files import write_atomically
from sizewise.record.directories import SweepDir
from sizewise.report.comparison.compare import Comparison
from sizewise.report.page.results import results_text


def write_results(comparison: Comparison, directory: Path) -> Path:
    """Write results.json as a report does."""
    path = SweepDir(directory).results
    write_atomically(path, results_text(comparison))
    return path
