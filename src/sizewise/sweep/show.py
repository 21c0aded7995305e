"""What a sweep shows of itself: the plan before, the state of a directory at any time."""

from __future__ import annotations

import importlib.util
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sizewise.errors import SweepError
from sizewise.sweep.claims import attempts, holder
from sizewise.sweep.files import JOB_FILE, LOG_FILE, SWEEP_FILE, read_json
from sizewise.sweep.plan import Plan
from sizewise.sweep.state import JobState, finished, job_state, read_failure

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StatusRow:
    """One job of a sweep: its state, how often it was begun, and what there is to say."""

    slug: str
    state: JobState
    attempts: int
    objective: float | None
    note: str


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
        _print_table(
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


def sweep_status(sweep_dir: Path) -> list[StatusRow]:
    """Return the state of every job in a sweep's directory, or of the one run that it is.

    Raises:
        SweepError: there is neither a sweep nor a run.
    """
    if (sweep_dir / JOB_FILE).exists():
        return [_row(sweep_dir)]
    planned = (read_json(sweep_dir / SWEEP_FILE) or {}).get("jobs", [])
    found = sorted(path.parent.name for path in sweep_dir.glob(f"*/{JOB_FILE}"))
    slugs = list(dict.fromkeys([*planned, *found]))
    if not slugs:
        raise SweepError(f"{sweep_dir} holds no sweep and no run. Name a directory that does.")
    return [_row(sweep_dir / slug) for slug in slugs]


def print_status(sweep_dir: Path) -> list[StatusRow]:
    """Print the state of a sweep's directory as a table, with the logs of what failed."""
    rows = sweep_status(sweep_dir)
    counts = Counter(row.state for row in rows)
    title = ", ".join(f"{counts[state]} {state}" for state in JobState if counts[state])
    _print_table(
        f"{sweep_dir}: {title}",
        ("job", "state", "attempts", "objective", "note"),
        [
            (
                row.slug,
                str(row.state),
                str(row.attempts),
                "" if row.objective is None else f"{row.objective:.4g}",
                row.note,
            )
            for row in rows
        ],
    )
    return rows


def estimated_memory(config: Mapping[str, Any]) -> str:
    """Return the planner's estimate for a job, as text; a dash where there is none."""
    if importlib.util.find_spec("sizewise.models.planner") is None:
        return "–"
    from sizewise.models import planner
    from sizewise.sweep.typed import run_config

    estimate = getattr(planner, "describe_memory", None)
    return str(estimate(run_config(config))) if estimate is not None else "–"


def _row(run_dir: Path) -> StatusRow:
    state = job_state(run_dir)
    outcome = finished(run_dir) if state == JobState.DONE else None
    return StatusRow(
        run_dir.name, state, attempts(run_dir), outcome.objective if outcome else None,
        _note(run_dir, state),
    )


def _note(run_dir: Path, state: JobState) -> str:
    if state == JobState.RUNNING:
        return str(holder(run_dir))
    failure = read_failure(run_dir) if state == JobState.FAILED else None
    if failure is not None:
        return f"{failure.reason.splitlines()[0]} ({run_dir.name}/{LOG_FILE})"
    return ""


def _print_table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
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
