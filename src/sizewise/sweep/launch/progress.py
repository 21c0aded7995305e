"""What a launcher shows of its sweep: the board on a terminal; lines, one a minute, elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live

from sizewise.errors import SweepError
from sizewise.job.submit import Job
from sizewise.record.claims import holder
from sizewise.sweep.board import Looks, Memory, board_lines, board_view, read_board
from sizewise.sweep.launch.backend import outcome_line
from sizewise.words import literal

if TYPE_CHECKING:
    from sizewise.sweep.launch.slot import Slot

LIVE_SECONDS, LINE_SECONDS = 1.0, 60.0


class Progress:
    """Shows how many of ``total`` jobs have ended and where the others are.

    Args:
        total: jobs that are run now; the board shows those of the whole directory.
        live: show a board that is drawn again and again; None: on a terminal only.
        sweep_dir: what the board shows; None: no board, only what begins and ends.
        clock: seconds that only go up.
    """

    def __init__(
        self,
        total: int,
        live: bool | None = None,
        sweep_dir: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
        self._live: Live | None = None
        self._total, self._ended = total, set[str]()
        self._sweep_dir, self._clock, self._memory = sweep_dir, clock, Memory()
        self._looks = Looks(clock)
        if live if live is not None else self.console.is_terminal:
            self._live = Live(
                "", console=self.console, auto_refresh=False, vertical_overflow="crop"
            )
        self._every = LINE_SECONDS if self._live is None else LIVE_SECONDS
        self._next = clock() + (LINE_SECONDS if self._live is None else 0.0)

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def add(self, jobs: Sequence[Job]) -> None:
        """Count jobs that have become due while others ran: new ones, and those that go on."""
        names = {job.identity.slug for job in jobs}
        self._total += len(names - self._ended)
        self._ended -= names

    def say(self, text: str) -> None:
        self.console.print(literal(text))

    def begin(self, slot: Slot | None, job: Job) -> None:
        if self._live is None:
            where = f" on GPU {','.join(slot.gpus)}" if slot is not None and slot.gpus else ""
            self.say(f"start   {job.identity.slug}{where}")

    def held(self, job: Job) -> None:
        owner = holder(job.run_dir)
        self.say(f"held    {job.identity.slug} by {owner or 'another process'}: waiting for it")

    def end(self, slot: Slot | None, job: Job) -> None:
        self._ended.add(job.identity.slug)
        seconds = f" ({time.monotonic() - slot.started:.1f} s)" if slot is not None else ""
        line = outcome_line(job)
        first, _, rest = line.partition("\n")
        text = f"[{len(self._ended)}/{self._total}] {job.identity.slug}{seconds}: {first}"
        self.say(f"{text}\n{rest}" if rest else text)

    def refresh(self) -> None:
        """Show the board where it is due; launchers call this as often as they like."""
        now = self._clock()
        if self._sweep_dir is None or now < self._next:
            return
        sweep_dir = self._sweep_dir
        try:
            self._looks.take(lambda: self._draw(sweep_dir))
        except SweepError:  # nothing was submitted yet
            return
        self._next = now + max(self._every, self._looks.pause)

    def _draw(self, sweep_dir: Path) -> None:
        board = read_board(sweep_dir, memory=self._memory)
        if self._live is not None:
            self._live.update(board_view(board), refresh=True)
            return
        for line in board_lines(board):
            self.say(line)
