"""Names of the files of a run and of a sweep, and how they are read and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sizewise.files import write_atomically

JOB_FILE = "job.json"
FAILURE_FILE = "failed.json"
PRUNED_FILE = "pruned.json"
QUEUE_FILE = "queued.json"
LOG_FILE = "job.log"
METRICS_FILE = "metrics.jsonl"
CLAIMS_DIR = ".claims"
SWEEP_FILE = "sweep.json"
SUMMARY_FILE = "summary.txt"


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the record in ``path``; None where there is none or it is torn."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write ``record`` atomically, creating the folder where needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(record, indent=2, ensure_ascii=False, default=str))


def tail(path: Path, lines: int = 1, chunk: int = 16_384) -> list[str]:
    """Return the last ``lines`` whole lines of a text file, reading at most ``chunk`` bytes."""
    try:
        with path.open("rb") as handle:
            size = handle.seek(0, 2)
            handle.seek(max(0, size - chunk))
            text = handle.read().decode("utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return []
    return text.splitlines()[-lines:]
