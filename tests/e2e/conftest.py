"""Tests that need SLURM or Ray are deselected, and reported, where there is none."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess

import pytest

_ABSENT = pytest.StashKey[dict[str, int]]()


def pytest_configure(config: pytest.Config) -> None:
    """Name the marker that only these tests use."""
    config.addinivalue_line("markers", "ray: needs Ray to be installed")


def slurm_runs() -> bool:
    """Whether SLURM's controller answers; one that SLURM_CONF names has to."""
    tool = shutil.which("scontrol")
    if tool is None:
        return False
    try:
        answer = subprocess.run([tool, "ping"], capture_output=True, text=True, timeout=120)
        up = answer.returncode == 0 and "UP" in answer.stdout
    except subprocess.TimeoutExpired:
        up = False
    if not up and "SLURM_CONF" in os.environ:
        raise pytest.UsageError(f"The SLURM of {os.environ['SLURM_CONF']} does not answer.")
    return up


@pytest.hookimpl(trylast=True)  # what -m leaves out needs no answer
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests of what is not there."""
    there = {"slurm": slurm_runs, "ray": lambda: importlib.util.find_spec("ray") is not None}
    absent: dict[str, int] = {}
    for marker, check in there.items():
        wanting = [item for item in items if item.get_closest_marker(marker) is not None]
        if wanting and not check():
            config.hook.pytest_deselected(items=wanting)
            items[:] = [item for item in items if item not in wanting]
            absent[marker] = len(wanting)
    config.stash[_ABSENT] = absent


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Report how many tests could not run."""
    for marker, count in config.stash.get(_ABSENT, {}).items():
        terminalreporter.write_line(f"{count} tests of {marker} not run: it is not there")
