"""What a sweep says before it starts: the plan, and with it the memory each job will take."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from sizewise.errors import SizewiseError
from sizewise.sweep.jobs import Job
from sizewise.sweep.plan import Plan
from sizewise.sweep.typed import run_config

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
        memory = estimated_memory(plan.jobs)
        print_table(
            f"{plan.name} (dry run)",
            ("job", "state", "memory", "overrides"),
            [
                (
                    job.identity.slug,
                    str(plan.states[job.identity.slug]),
                    memory[job.identity.slug],
                    " ".join(text for text in job.overrides if not text.startswith("paths.")),
                )
                for job in plan.jobs
            ],
        )


def estimated_memory(jobs: Sequence[Job]) -> dict[str, str]:
    """Return the planner's peak of each job by slug, as text; a dash where its size is not known.

    Jobs that differ in what costs no memory (seeds, rates) are planned once.
    """
    from sizewise.job.memory import GB, memory_key, peak_bytes

    known: dict[str, str] = {}
    found: dict[str, str] = {}
    for job in jobs:
        cfg = run_config(job.config)
        key = memory_key(cfg)
        if key not in known:
            try:
                known[key] = f"{peak_bytes(cfg) / GB:.2f} GB"
            except SizewiseError:
                known[key] = "–"
        found[job.identity.slug] = known[key]
    return found


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
