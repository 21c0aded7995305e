"""The runs below a directory, and when they changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sizewise.errors import OutcomeError
from sizewise.outcome import OUTCOME_FILE
from sizewise.report.load import Loaded, Run, load_runs


def stamp(directory: Path) -> str:
    """Return a text that changes when a record below ``directory`` comes, goes or changes."""
    digest = hashlib.sha256()
    for path in sorted(directory.rglob(OUTCOME_FILE)):
        try:
            facts = path.stat()
        except OSError:
            continue
        digest.update(f"{path}:{facts.st_mtime_ns}:{facts.st_size}\n".encode())
    return digest.hexdigest()


def load_library(directory: Path) -> Loaded:
    """Read all runs below ``directory``; none is no error."""
    return load_runs([directory])


def run_named(loaded: Loaded, directory_name: str) -> Run:
    """Return the run whose directory has this name; raises OutcomeError where there is none."""
    for run in loaded.runs:
        if run.directory.name == directory_name:
            return run
    raise OutcomeError(f"There is no finished run {directory_name!r} any more. Choose another.")


def datasets(loaded: Loaded) -> dict[str, Run]:
    """Return, for every data set that was trained or scored on, one run that names it."""
    found: dict[str, Run] = {}
    for run in loaded.runs:
        found.setdefault(run.outcome.data.name, run)
    return dict(sorted(found.items()))
