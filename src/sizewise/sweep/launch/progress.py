"""One view of all workers: live on a terminal, a line per event elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from sizewise.files import parse_json, tail
from sizewise.job.submit import Job
from sizewise.record.claims import holder
from sizewise.record.directories import RunDir
from sizewise.report.words import literal
from sizewise.sweep.launch.backend import outcome_line

if TYPE_CHECKING:
    from sizewise.sweep.launch.slot import Slot


class Progress:
    """Shows how many of ``total`` jobs have ended and what each worker is doing.

    ``live`` None: on a terminal only.
    """

    def __init__(self, total: int, live: bool | None = None) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
        self._live: Live | None = None
        self._total, self._ended = total, 0
        self._bar = Bar(TextColumn("jobs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._task = self._bar.add_task("jobs", total=total)
        if live if live is not None else self.console.is_terminal:
            self._live = Live(self._bar, console=self.console, refresh_per_second=4)

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

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
        self._ended += 1
        self._bar.update(self._task, completed=self._ended)
        seconds = f" ({time.monotonic() - slot.started:.1f} s)" if slot is not None else ""
        line = outcome_line(job)
        first, _, rest = line.partition("\n")
        text = f"[{self._ended}/{self._total}] {job.identity.slug}{seconds}: {first}"
        self.say(f"{text}\n{rest}" if rest else text)

    def refresh(self, slots: Sequence[Slot]) -> None:
        if self._live is None:
            return
        table = Table.grid(padding=(0, 2))
        for slot in slots:
            if slot.job is not None:
                seconds = f"{time.monotonic() - slot.started:.0f} s"
                place = ",".join(slot.gpus) if slot.gpus else str(slot.number)
                table.add_row(
                    place, slot.job.identity.slug, seconds, literal(latest_figures(slot.job))
                )
        self._live.update(Group(table, self._bar))


def latest_figures(job: Job) -> str:
    """Return the last values that a running job wrote, as ``step 120  train_loss 1.234``."""
    try:
        record = parse_json(tail(RunDir(job.run_dir).history, 1)[-1])
        values = {name: float(v) for name, v in record["values"].items() if "loss" in name}
        step = int(record["step"])
    except (IndexError, ValueError, KeyError, TypeError, AttributeError):
        return ""  # nothing yet, or a line that is being written
    return "  ".join([f"step {step}", *(f"{name} {v:.4g}" for name, v in values.items())])
