"""Fixtures of all tests: the folder of real data beside the checkout, and a quiet environment."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# A shell that starts the tests in the background leaves Ctrl-C ignored; tests of Ctrl-C need it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(os.environ.get("SIZEWISE_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests of real data where it is absent, and say so (deselected, never skipped)."""
    if SHARED.is_dir():
        return
    without = [item for item in items if item.get_closest_marker("shared") is not None]
    if without:
        config.hook.pytest_deselected(items=without)
        items[:] = [item for item in items if item not in without]
        config.stash[_ABSENT] = len(without)


_ABSENT = pytest.StashKey[int]()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Report how many tests of real data could not run."""
    count = config.stash.get(_ABSENT, 0)
    if count:
        terminalreporter.write_line(f"{count} tests of real data not run: {SHARED} is absent")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real data, tokenizers and models beside the checkout."""
    return SHARED
