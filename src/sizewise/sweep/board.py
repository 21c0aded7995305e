"""The board of a running sweep: what its directory says of every job, and for how long it goes on.

It is read from the files of the jobs alone, so that it shows the same for every launcher, to every
process and on every machine that sees the directory.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Group
from rich.table import Table

from sizewise.errors import SweepError
from sizewise.files import parse_json, read_json, tail
from sizewise.record.claims import Owner, seconds_worked
from sizewise.record.directories import JOB_FILE, RunDir, SweepDir
from sizewise.record.history import parse_lines
from sizewise.record.progress import Stand, clock_text, read_stand
from sizewise.record.state import ENDED, JobState, read_failure, state_and_owner
from sizewise.words import literal, plural

log = logging.getLogger(__name__)
FIGURES = ("train_loss", "val_loss", "lr")
LAST_LINES = 40


@dataclass(frozen=True)
class JobLine:
    """A job that somebody works on: where it is, what it logged last, seconds so far and left.

    ``figures``: the last ``train_loss``, ``val_loss`` and ``lr`` that it logged. ``left`` None: not
    known yet.
    """

    name: str
    worker: str
    stand: Stand | None
    figures: Mapping[str, float]
    seconds: float
    left: float | None


@dataclass(frozen=True)
class Worker:
    """Whoever works on a job or a pack, and in how many seconds nothing is left for it.

    ``left`` None: not known.
    """

    name: str
    jobs: tuple[str, ...]
    left: float | None


@dataclass(frozen=True)
class Board:
    """What a sweep's directory says at one moment.

    ``counts``: jobs by state. ``left``: seconds until the last worker has nothing left to do; None
    where nobody works or it is not known yet. ``failed``: name and reason.
    """

    name: str
    counts: Mapping[JobState, int]
    running: tuple[JobLine, ...]
    workers: tuple[Worker, ...]
    failed: tuple[tuple[str, str], ...]
    left: float | None

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def ended(self) -> int:
        return sum(self.counts.get(state, 0) for state in ENDED)

    @property
    def title(self) -> str:
        """``7 of 24 jobs ended: 5 done, 2 pruned; 2 running, 15 waiting; about 4:10 left``."""
        each = [f"{self.counts[state]} {state}" for state in JobState if self.counts.get(state)]
        left = "" if self.left is None else f"; about {clock_text(self.left)} left"
        return f"{self.ended} of {plural(self.total, 'job')} ended ({', '.join(each)}){left}"


@dataclass
class Memory:
    """What a reader need not look up again: seconds of jobs that are done, and their models.

    ``together``: the most jobs that were seen with one worker at a time.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    together: int = 1


# A directory of very many jobs on a slow disk is looked at less often.
SHARE_OF_TIME = 0.05
Drawn = TypeVar("Drawn")


class Looks:
    """Looks at a board again and again: never more than a share of the time, whatever goes wrong.

    Nothing hangs on a board. An error of the disk, or a file that changes while it is read, is said
    once, and the next look tries again. ``clock``: seconds that only go up.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._said = clock, ""
        self.pause = 0.0
        """Seconds until the next look at least, after one."""

    def take(self, draw: Callable[[], Drawn]) -> Drawn | None:
        """Return what ``draw`` does; None after an error. SweepError is for who looks."""
        began = self._clock()
        try:
            return draw()
        except SweepError:
            raise
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            if said != self._said:
                log.warning("The jobs cannot be shown just now (%s); trying again.", said)
            self._said = said
            return None
        finally:
            self.pause = (self._clock() - began) / SHARE_OF_TIME


def read_board(sweep_dir: Path, now: float | None = None, memory: Memory | None = None) -> Board:
    """Read the board of a sweep, or of the one run that a directory is.

    Args:
        now: seconds since the epoch.
        memory: kept by who reads the same sweep again and again.

    Raises:
        SweepError: there is neither.
    """
    now, memory = now or time.time(), memory or Memory()
    parent, names = jobs_in(sweep_dir)
    states, owners = _states(parent, names, memory)
    expected = _Expected(parent, memory)
    running = [_line(parent / name, owner, expected, now) for name, owner in owners.items()]
    workers = _workers(running, _to_come(parent, states, expected, now), memory)
    times = [worker.left for worker in workers]
    known = [each for each in times if each is not None]
    return Board(
        sweep_dir.name,
        Counter(states.values()),
        tuple(running),
        tuple(workers),
        tuple((n, _reason(parent / n)) for n, s in states.items() if s == JobState.FAILED),
        max(known) if known and len(known) == len(times) else None,
    )


def _states(
    parent: Path, names: Sequence[str], memory: Memory
) -> tuple[dict[str, JobState], dict[str, Owner]]:
    """State of every job, and who works on those that run.

    Those that were done stay so, and are not looked up again. Nor is an owner: on another machine
    that takes a file of its own.
    """
    found, owners = {}, {}
    for name in names:
        if name in memory.seconds:
            found[name] = JobState.DONE
            continue
        found[name], owner = state_and_owner(parent / name)
        if owner is not None:
            owners[name] = owner
        if found[name] == JobState.DONE:
            memory.seconds[name] = seconds_worked(parent / name, 0.0, held=False)
    return found, owners


def _to_come(
    parent: Path, states: Mapping[str, JobState], expected: _Expected, now: float
) -> list[float | None]:
    """Seconds of every job that nobody has begun, or goes on with, or that is not named yet."""
    waiting = [name for name, state in states.items() if state not in (*ENDED, JobState.RUNNING)]
    worked = {name: seconds_worked(parent / name, now, held=False) for name in waiting}
    if all(state in ENDED for state in states.values()):
        return []
    return [*(expected.left(name, worked[name]) for name in waiting), *expected.later]


def jobs_in(sweep_dir: Path) -> tuple[Path, list[str]]:
    """Return the folder of a sweep's runs with their names, or of the one run that it is.

    Raises:
        SweepError: there is neither.
    """
    if RunDir(sweep_dir).job.exists():
        whole = sweep_dir.resolve()
        return whole.parent, [whole.name]
    planned = (read_json(SweepDir(sweep_dir).plan) or {}).get("jobs", [])
    found = sorted(path.parent.name for path in sweep_dir.glob(f"*/{JOB_FILE}"))
    names = list(dict.fromkeys([*planned, *found]))
    if not names:
        raise SweepError(f"{sweep_dir} holds no sweep and no run. Name a directory that does.")
    return sweep_dir, names


def _line(run_dir: Path, owner: Owner, expected: _Expected, now: float) -> JobLine:
    stand = _stand_now(run_dir, owner)
    seconds = seconds_worked(run_dir, now, held=True)
    stage = stand.left if stand is not None else None
    if stage is not None and stand is not None:
        stage = max(0.0, stage - (now - stand.time))
    whole = expected.left(run_dir.name, seconds)
    known = [left for left in (stage, whole) if left is not None]
    left = max(known, default=None)
    return JobLine(run_dir.name, worker_name(owner), stand, figures(run_dir), seconds, left)


def _stand_now(run_dir: Path, owner: Owner) -> Stand | None:
    """Where a job stands; what an attempt left that was killed says nothing of this one."""
    stand = read_stand(run_dir)
    old = stand is not None and owner.at is not None and stand.time < owner.at
    return None if old else stand


def worker_name(owner: Owner) -> str:
    return f"{owner.host}:{owner.pid}" if owner.queue_job is None else f"SLURM {owner.queue_job}"


def figures(run_dir: Path) -> dict[str, float]:
    """The last losses and learning rate that a job has logged; a line under way is left out."""
    text = "".join(f"{line}\n" for line in tail(RunDir(run_dir).history, LAST_LINES))
    found: dict[str, float] = {}
    for line in parse_lines(text.encode()):
        found |= {name: float(line.values[name]) for name in FIGURES if name in line.values}
    return found


def _reason(run_dir: Path) -> str:
    failure = read_failure(run_dir)
    return failure.first_line if failure is not None else ""


class _Expected:
    """How long jobs take: as planned, at the pace so far; without a plan as like ones took."""

    def __init__(self, parent: Path, memory: Memory) -> None:
        estimate = (read_json(SweepDir(parent).plan) or {}).get("estimate") or {}
        planned: Mapping[str, Any] = estimate.get("jobs") or {}
        self._planned = {n: float(s) for n, s in planned.items() if isinstance(s, int | float)}
        self._parent, self._memory = parent, memory
        ended = {n: s for n, s in memory.seconds.items() if s > 0}
        both = [n for n in ended if n in self._planned]
        wanted = sum(self._planned[n] for n in both)
        self.pace = sum(ended[n] for n in both) / wanted if wanted > 0 else 1.0
        self._by_kind: dict[str, list[float]] = {}
        for name, seconds in ended.items():
            self._by_kind.setdefault(self._kind(name), []).append(seconds)
        later = estimate.get("later") or []
        self.later = [s * self.pace for s in later if isinstance(s, int | float)]

    def left(self, name: str, worked: float) -> float | None:
        """Seconds that a job still takes after so many; None where nothing is known.

        Nothing is known either of one that takes longer than was to be expected.
        """
        if name in self._planned:
            whole = self._planned[name] * self.pace
        else:
            like = self._by_kind.get(self._kind(name)) or list(chain(*self._by_kind.values()))
            whole = sum(like) / len(like) if like else 0.0
        return whole - worked if whole > worked else None

    def _kind(self, name: str) -> str:
        """What a job has in common with those that take about as long: model and adapter."""
        if name not in self._memory.kinds:
            try:
                job = parse_json(RunDir(self._parent / name).job.read_text(encoding="utf-8"))
                config = job["config"]
                parts = (config["model"]["name"], config["lora"]["method"])
            except (OSError, ValueError, KeyError, TypeError):
                return ""  # not submitted yet
            self._memory.kinds[name] = " ".join(map(str, parts))
        return self._memory.kinds[name]


def _workers(
    running: Sequence[JobLine], waiting: Sequence[float | None], memory: Memory
) -> list[Worker]:
    """Let whoever is free first take the next job, as the launchers do.

    Jobs of one pack have one worker, which is free when the last of them has ended; those that
    wait are taken by as many.
    """
    packs: dict[str, list[JobLine]] = {}
    for line in running:
        packs.setdefault(line.worker, []).append(line)
    memory.together = max(memory.together, *map(len, packs.values()), 1)
    workers = [_worker(name, lines) for name, lines in packs.items()]
    known = [worker.left for worker in workers if worker.left is not None]
    if not running or len(known) < len(workers) or None in waiting:
        return [replace(worker, left=None) for worker in workers] if waiting else workers
    free = [(left, number) for number, left in enumerate(known)]
    heapq.heapify(free)
    longest_first = sorted((each or 0.0 for each in waiting), reverse=True)
    for first in range(0, len(waiting), memory.together):
        left, number = heapq.heappop(free)
        seconds = longest_first[first]
        heapq.heappush(free, (left + seconds, number))
    ends = {number: left for left, number in free}
    return [replace(worker, left=ends[number]) for number, worker in enumerate(workers)]


def _worker(name: str, lines: Sequence[JobLine]) -> Worker:
    known = [line.left for line in lines if line.left is not None]
    left = max(known) if len(known) == len(lines) else None
    return Worker(name, tuple(line.name for line in lines), left)


COLUMNS = ("job", "stage", "done", "train loss", "val. loss", "rate", "so far", "left", "worker")


def board_rows(board: Board) -> list[tuple[str, ...]]:
    """A row of texts for every running job, in the order of ``COLUMNS``."""
    ends = {job: worker.left for worker in board.workers for job in worker.jobs}
    return [
        (
            line.name,
            *_stage(line.stand),
            *(_figure(line.figures.get(name)) for name in FIGURES),
            clock_text(line.seconds),
            _left(line.left),
            f"{line.worker}, free in {_left(ends.get(line.name))}",
        )
        for line in board.running
    ]


def _stage(stand: Stand | None) -> tuple[str, str]:
    if stand is None:
        return "starting", ""
    return f"{stand.stage} {stand.what}".strip(), f"{stand.done}/{stand.of}"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _left(seconds: float | None) -> str:
    return "?" if seconds is None else clock_text(seconds)


def board_view(board: Board) -> Group:
    """The board for a terminal."""
    table = Table(*COLUMNS, box=None, padding=(0, 1), header_style="dim")
    for name in COLUMNS[:3]:
        table.columns[COLUMNS.index(name)].overflow = "fold"
    for row in board_rows(board):
        table.add_row(*map(literal, row))
    failed = [f"[red]failed[/] {literal(name)}: {literal(why)}" for name, why in board.failed]
    title = f"[bold]{literal(board.name)}[/]: {literal(board.title)}"
    return Group(title, *([table] if board.running else []), *failed)


def board_lines(board: Board) -> list[str]:
    """The board for a log: a line for every running job, and one for the whole."""
    lines = []
    for line in board.running:
        stand = "starting" if line.stand is None else str(line.stand)
        logged = [f"{n} {_figure(line.figures[n])}" for n in FIGURES if n in line.figures]
        left = "" if line.left is None else f", about {clock_text(line.left)} left"
        said = f"running {line.name}: {stand}, after {clock_text(line.seconds)}{left}"
        lines.append("  ".join([said, *logged]))
    return [*lines, board.title]
