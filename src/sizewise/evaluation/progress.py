"""Progress of an evaluation: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Tell = Callable[[int, int], None]


@contextmanager
def evaluation_bar(label: str, wanted: bool) -> Iterator[Tell | None]:
    """Yield what is to be called with the examples done and all of them; None without a bar.

    It is drawn when it is told, never beside a measured batch.

    Args:
        label: what is evaluated.
        wanted: whether to draw a bar where standard error is a terminal.
    """
    if not wanted or not sys.stderr.isatty():
        yield None
        return
    bar = Progress(
        TextColumn(label), BarColumn(), TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), auto_refresh=False, transient=True,
    )  # fmt: skip
    with bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total, refresh=True)
