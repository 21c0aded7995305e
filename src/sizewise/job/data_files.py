"""The data of a run as files: its splits as SQLite, and the distribution of token lengths."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sizewise.atomic import write_atomically
from sizewise.data.explore import explore
from sizewise.data.sqlite import write_splits
from sizewise.job.tasks import Task

DATA = "data"
SPLITS_FILE = "splits.sqlite"
EXPLORATION_FILE = "exploration.json"
LENGTHS_FILE = "token_lengths.png"


def save_data(task: Task, template: Any, folder: Path) -> None:
    """Write ``splits.sqlite``, ``exploration.json`` and ``token_lengths.png`` into ``folder``.

    The SQLite file holds the table ``examples`` and is read back by ``dataset=sqlite``.

    Raises:
        DataError: the file cannot be written.
    """
    from sizewise.commands.explore import draw_lengths

    write_splits(task.splits, folder / SPLITS_FILE)
    found = explore(task.splits, template, samples=0)
    write_atomically(folder / EXPLORATION_FILE, json.dumps(asdict(found), indent=2))
    draw_lengths(found, folder / LENGTHS_FILE)
