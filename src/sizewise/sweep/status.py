"""The state of a sweep's directory at any time, from any machine that sees it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from rich.live import Live

from sizewise.record.claims import attempts, holder
from sizewise.record.directories import LOG_FILE
from sizewise.record.state import JobState, finished, job_state, read_failure
from sizewise.record.stops import standing_stop
from sizewise.report.page.terminal import wide_console
from sizewise.sweep.board import Board, Looks, Memory, board_lines, board_view, jobs_in, read_board
from sizewise.sweep.launch.progress import LINE_SECONDS
from sizewise.sweep.launch.slurm_launcher import queue_id
from sizewise.sweep.launch.slurm_queue import is_held, queue_reasons
from sizewise.sweep.plan import print_table
from sizewise.words import literal

WATCH_SECONDS, IDLE_LOOKS = 2.0, 5


@dataclass(frozen=True)
class StatusRow:
    """One job of a sweep: its state, how often it was begun, its result, and a note."""

    slug: str
    state: JobState
    attempts: int
    result: str
    note: str


def sweep_status(sweep_dir: Path) -> list[StatusRow]:
    """State of every job in a sweep's directory, or of the one run that it is, else SweepError."""
    parent, names = jobs_in(sweep_dir)
    return _without_lost([_row(parent / name) for name in names], parent)


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
    """Print the board of a sweep's directory, and all its jobs with the logs of what failed."""
    rows = sweep_status(sweep_dir)
    board = read_board(sweep_dir)
    if board.running:
        wide_console(200).print(board_view(board))
    counts = Counter(row.state for row in rows)
    title = ", ".join(f"{counts[state]} {state}" for state in JobState if counts[state])
    print_table(
        f"{sweep_dir}: {title}",
        ("job", "state", "attempts", "result", "note"),
        [
            (
                row.slug,
                str(row.state),
                str(row.attempts),
                row.result,
                row.note,
            )
            for row in rows
        ],
    )
    return rows


def watch(
    sweep_dir: Path,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show the board until nobody works on the sweep, nor waits in a queue (or Ctrl-C).

    It is drawn again and again on a terminal; elsewhere it is lines, once a minute.
    """
    console, memory, looks = wide_console(200), Memory(), Looks()
    drawn = Live("", console=console, auto_refresh=False) if console.is_terminal else nullcontext()
    idle, said = 0, ""
    with drawn as live:
        while idle < IDLE_LOOKS:  # between two jobs there is a moment without any
            found = looks.take(lambda: _drawn(sweep_dir, clock(), memory, live))
            if found is None:
                sleep(max(WATCH_SECONDS, looks.pause))
                continue
            board, text = found
            if live is None and text != said:
                console.print(text, highlight=False)
            busy, said = board.running or board.counts.get(JobState.QUEUED), text
            if not busy and set(board.counts) <= {JobState.DONE, JobState.FAILED}:
                return
            idle = 0 if busy else idle + 1
            every = LINE_SECONDS if live is None and busy else WATCH_SECONDS
            sleep(max(every, looks.pause))


def _drawn(sweep_dir: Path, now: float, memory: Memory, live: Live | None) -> tuple[Board, str]:
    """The board, drawn where it is live, and its lines."""
    board = read_board(sweep_dir, now, memory)
    if live is not None:
        live.update(board_view(board), refresh=True)
    return board, "\n".join(map(literal, board_lines(board)))


def _row(run_dir: Path) -> StatusRow:
    state = job_state(run_dir)
    outcome = finished(run_dir) if state == JobState.DONE else None
    return StatusRow(
        run_dir.name,
        state,
        attempts(run_dir),
        outcome.objective_text if outcome else "",
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
        return f"{failure.first_line} ({run_dir.name}/{LOG_FILE})"
    return ""
