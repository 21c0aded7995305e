"""What stands at the end of every sweep: files, a table, the verdict, the failures.

What is printed is kept in ``summary.txt``, so that a finished sweep that is started again shows it
at once.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from sizewise.config import PricesConfig
from sizewise.files import write_atomically
from sizewise.record.directories import SweepDir
from sizewise.report.comparison.compare import Comparison, compare_loaded
from sizewise.report.comparison.runs import Loaded, load_runs
from sizewise.report.page.page import charts_of
from sizewise.report.page.results import clean
from sizewise.report.page.terminal import Failure, show, wide_console
from sizewise.report.page.write import write_report
from sizewise.report.views.charts import parallel_chart
from sizewise.tracking.summary_run import SweepSummary, wandb_options, write_summary_run

log = logging.getLogger(__name__)


def finish_sweep(
    sweep_dir: Path,
    run_dirs: Sequence[Path],
    failures: Sequence[Failure] = (),
    console: Console | None = None,
    prices: PricesConfig | None = None,
) -> Comparison:
    """Write the report of a sweep into its directory, show it, and record it in W&B.

    Works with no finished run, with one, and with several data sets; jobs without an outcome are
    left out.
    """
    there = [path for path in run_dirs if path.is_dir()]
    comparison = compare_loaded(load_runs(there) if there else Loaded((), ()), prices=prices)
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


def record_in_wandb(sweep_dir: Path, comparison: Comparison, paths: dict[str, Path]) -> None:
    """Write the sweep's summary run where its runs used W&B; a failure there is only reported."""
    options = wandb_options([run.outcome for run in comparison.runs])
    if options is None or not comparison.sets:
        return
    group = sweep_name(comparison) or sweep_dir.name
    try:
        write_summary_run(sweep_dir, group, options, sweep_summary(comparison, paths))
    except Exception:
        log.warning("The summary run could not be written to W&B.", exc_info=True)


def sweep_name(comparison: Comparison) -> str | None:
    """The name that the runs' configurations give their sweep, if they give one."""
    names = {(r.outcome.config.get("sweep") or {}).get("name") for r in comparison.runs}
    return names.pop() if len(names) == 1 else None


def sweep_summary(comparison: Comparison, paths: dict[str, Path]) -> SweepSummary:
    frame = comparison.table
    main = comparison.sets[0]
    values: dict[str, Any] = {
        "verdict": f"{comparison.verdict.headline}. {comparison.verdict.sentence}",
        "verdict_status": comparison.verdict.status,
        "runs_finished": len(comparison.runs),
    }
    for front in main.fronts:
        values[f"pareto/{front.cost}"] = ", ".join(front.labels)
        values[f"hypervolume/{front.cost}"] = front.share
    images = {"size_vs_quality": paths["picture"]} if paths["picture"].is_file() else {}
    rows: list[list[Any]] = clean(frame.astype(object).to_numpy().tolist())
    figures = {f"report/{name}": figure for name, figure in charts_of(main).items()}
    figures["parallel_coordinates"] = parallel_chart(main.table, main.test.primary)
    return SweepSummary(list(frame.columns), rows, values, images, figures)
