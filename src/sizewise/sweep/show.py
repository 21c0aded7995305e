"""What a sweep says before it starts: the plan, and with it the memory each job will take."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from typing import Any

from sizewise.sweep.plan import Plan

log = logging.getLogger(__name__)


def print_plan(plan: Plan, details: bool) -> None:
    """Say what a sweep is going to do; with ``details`` job by job."""
    joined = plan.asked - len({job.identity.hash for job in plan.jobs})
    same = f", {joined} joined with equal ones or left out" if joined else ""
    log.info(
        "Sweep %s: %d jobs%s; %d done, %d to do. Directory: %s",
        plan.name,
        len(plan.jobs),
        same,
        len(plan.done),
        len(plan.to_do),
        plan.sweep_dir,
    )
    if details:
        print_table(
            f"{plan.name} (dry run)",
            ("job", "state", "memory", "overrides"),
            [
                (
                    job.identity.slug,
                    str(plan.states[job.identity.slug]),
                    estimated_memory(job.config),
                    " ".join(text for text in job.overrides if not text.startswith("paths.")),
                )
                for job in plan.jobs
            ],
        )


def estimated_memory(config: Mapping[str, Any]) -> str:
    """Return the planner's estimate for a job, as text; a dash where there is none."""
    if importlib.util.find_spec("sizewise.models.planner") is None:
        return "–"
    from sizewise.models import planner
    from sizewise.sweep.typed import run_config

    estimate = getattr(planner, "describe_memory", None)
    return str(estimate(run_config(config))) if estimate is not None else "–"


def print_table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print a table, as wide as it needs where it does not go to a terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console()
    # On a terminal the table fits it; in a file or a pipe nothing may be cut.
    if not console.is_terminal:
        console = Console(width=400)
    console.print(table)
