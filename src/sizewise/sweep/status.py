"""The state of a sweep's directory at any time, from any machine that sees it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from sizewise.errors import SweepError
from sizewise.files import read_json
from sizewise.record.claims import attempts, holder
from sizewise.record.directories import JOB_FILE, LOG_FILE, RunDir, SweepDir
from sizewise.record.state import JobState, finished, job_state, read_failure
from sizewise.record.stops import standing_stop
from sizewise.sweep.launch.slurm_launcher import queue_id
from sizewise.sweep.launch.slurm_queue import is_held, queue_reasons
from sizewise.sweep.plan import print_table


@dataclass(frozen=True)
class StatusRow:
    """One job of a sweep: its state, how often it was begun, and what there is to say."""

    slug: str
    state: JobState
    attempts: int
    objective: float | None
    note: str


def sweep_status(sweep_dir: Path) -> list[StatusRow]:
    """State of every job in a sweep's directory, or of the one run that it is, else SweepError."""
    if RunDir(sweep_dir).job.exists():
        return [_row(sweep_dir)]
    planned = (read_json(SweepDir(sweep_dir).plan) or {}).get("jobs", [])
    found = sorted(path.parent.name for path in sweep_dir.glob(f"*/{JOB_FILE}"))
    slugs = list(dict.fromkeys([*planned, *found]))
    if not slugs:
        raise SweepError(f"{sweep_dir} holds no sweep and no run. Name a directory that does.")
    rows = [_row(sweep_dir / slug) for slug in slugs]
    return _without_lost(rows, sweep_dir)


def _without_lost(rows: list[StatusRow], sweep_dir: Path) -> list[StatusRow]:
    """Jobs that were queued, but that SLURM no longer knows, are not queued; held ones say so."""
    queued = any(row.state == JobState.QUEUED for row in rows)
    reasons = queue_reasons() if queued else None
    if reasons is None:
        return rows
    return [_in_queue(row, reasons.get(queue_id(sweep_dir / row.slug) or "")) for row in rows]


def _in_queue(row: StatusRow, reason: str | None) -> StatusRow:
    if row.state != JobState.QUEUED:
        return row
    if reason is None:
        note = "left SLURM's queue without a result"
        return replace(row, state=JobState.INTERRUPTED, note=note)
    return replace(row, note=f"SLURM: {reason}") if is_held(reason) else row


def print_status(sweep_dir: Path) -> list[StatusRow]:
    """Print the state of a sweep's directory as a table, with the logs of what failed."""
    rows = sweep_status(sweep_dir)
    counts = Counter(row.state for row in rows)
    title = ", ".join(f"{counts[state]} {state}" for state in JobState if counts[state])
    print_table(
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


def _row(run_dir: Path) -> StatusRow:
    state = job_state(run_dir)
    outcome = finished(run_dir) if state == JobState.DONE else None
    return StatusRow(
        run_dir.name,
        state,
        attempts(run_dir),
        outcome.objective if outcome else None,
        _note(run_dir, state),
    )


def _note(run_dir: Path, state: JobState) -> str:
    if state == JobState.RUNNING:
        return str(holder(run_dir))
    stop = standing_stop(run_dir) if state == JobState.PRUNED else None
    if stop is not None:
        return str(stop)
    failure = read_failure(run_dir) if state == JobState.FAILED else None
    if failure is not None:
        return f"{failure.reason.splitlines()[0]} ({run_dir.name}/{LOG_FILE})"
    return ""
