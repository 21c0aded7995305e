"""What stands at the end of every sweep: files, a table, the verdict, the failures.

What is printed is kept in ``summary.txt``, so that a finished sweep that is started again shows it
at once.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from sizewise.config import PricesConfig
from sizewise.files import write_atomically
from sizewise.record.directories import SweepDir
from sizewise.report.comparison.compare import Comparison, compare_loaded
from sizewise.report.comparison.runs import Loaded, load_runs
from sizewise.report.page.terminal import Failure, show, wide_console
from sizewise.report.page.write import write_report
from sizewise.report.wandb import record_in_wandb


def finish_sweep(
    sweep_dir: Path,
    run_dirs: Sequence[Path],
    failures: Sequence[Failure] = (),
    console: Console | None = None,
    prices: PricesConfig | None = None,
    margin: float | None = None,
) -> Comparison:
    """Write the report of a sweep into its directory, show it, and record it in W&B.

    Works with no finished run, with one, and with several data sets; jobs without an outcome are
    left out.
    """
    there = [path for path in run_dirs if path.is_dir()]
    loaded = load_runs(there) if there else Loaded((), ())
    comparison = compare_loaded(loaded, prices=prices, margin=margin)
    paths = write_report(comparison, sweep_dir, failures, title=sweep_dir.name)
    record_in_wandb(sweep_dir, comparison, paths)
    shown = ("table", "picture", "report")
    named = {name: path for name, path in paths.items() if name in shown and path.is_file()}
    console = console or wide_console()
    show(comparison, failures, named, console)
    text = io.StringIO()
    show(comparison, failures, named, Console(file=text, width=console.width, emoji=False))
    write_atomically(SweepDir(sweep_dir).summary, text.getvalue())
    return comparison
