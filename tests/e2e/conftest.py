"""Tests that need a running SLURM are deselected, and reported, where there is none."""

from __future__ import annotations

import shutil
import subprocess

import pytest

_ABSENT = pytest.StashKey[int]()


def slurm_runs() -> bool:
    """Whether SLURM's controller answers."""
    tool = shutil.which("scontrol")
    if tool is None:
        return False
    try:
        answer = subprocess.run([tool, "ping"], capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        return False
    return answer.returncode == 0 and "UP" in answer.stdout


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests of SLURM where it does not run."""
    wanting = [item for item in items if item.get_closest_marker("slurm") is not None]
    if wanting and not slurm_runs():
        config.hook.pytest_deselected(items=wanting)
        items[:] = [item for item in items if item not in wanting]
        config.stash[_ABSENT] = len(wanting)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Report how many tests of SLURM could not run."""
    count = config.stash.get(_ABSENT, 0)
    if count:
        terminalreporter.write_line(f"{count} tests of SLURM not run: no controller answers")
