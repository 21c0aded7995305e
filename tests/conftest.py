"""Fixtures of all tests: the folder of real data beside the checkout, and a quiet environment."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from sizewise.runtime import COLLECTIONS

# What a shell, CI or a cluster has set decides nothing here, nor in the processes begun here. Only
# SLURM_CONF stays: it names the SLURM that was started for the tests.
FOREIGN = (
    "CLICOLOR", "COLUMNS", "FAKE_", "FORCE_COLOR", "GITHUB_ACTIONS", "HF_", "HYDRA_", "LINES",
    "MASTER_", "NO_COLOR", "PY_COLORS", "RAY_", "SLURM_", "TTY_", "WANDB_", "WORLD_SIZE",
)  # fmt: skip
for name in [*os.environ]:
    if name != "SLURM_CONF" and (name.startswith(FOREIGN) or name.endswith("RANK")):
        del os.environ[name]
EMPTY = tempfile.TemporaryDirectory(prefix="hf_home_")
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HOME=EMPTY.name,
    WANDB_MODE="offline",
    TOKENIZERS_PARALLELISM="false",
    OMP_WAIT_POLICY="passive",  # processes with two threads would spin while others compute
    CUDA_VISIBLE_DEVICES="",
)

settings.register_profile(
    "same_everywhere",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("same_everywhere")

# A shell that starts the tests in the background leaves Ctrl-C ignored; tests of Ctrl-C need it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A worker that has imported everything holds a million objects, and tests make many that soon go.
gc.set_threshold(*COLLECTIONS)

MAIN = sys.modules["__main__"]
SHARED = Path(os.environ.get("SIZEWISE_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(autouse=True)
def collections_stay_cheap() -> None:
    """Collections of garbage, of which every job makes some, leave out what is there already."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def timed_once() -> Iterator[None]:
    """A job that runs in this process times one round of answers, not a second of them."""
    with pytest.MonkeyPatch.context() as patched:
        if "sizewise.evaluation.timing" in sys.modules:
            patched.setattr("sizewise.evaluation.timing.ENOUGH_SECONDS", 0.0)
        yield


@pytest.fixture(autouse=True)
def handlers_stay() -> Iterator[None]:
    """No test leaves another handler of SIGINT or SIGTERM to the next one."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    left = {number: signal.getsignal(number) for number in before}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert left == before


@pytest.fixture(autouse=True)
def main_stays() -> Iterator[None]:
    """Streamlit makes the script that it runs ``__main__``; a process begun later would run it."""
    sys.modules["__main__"] = MAIN
    yield
    sys.modules["__main__"] = MAIN


@pytest.fixture(autouse=True)
def logging_stays() -> Iterator[None]:
    """What a command that ran in this process set up for its log ends with the test.

    Hydra gives the root logger a handler of the terminal as it then is: one that pytest closes.
    """
    root = logging.getLogger()
    level, handlers, disabled = root.level, [*root.handlers], logging.root.manager.disable
    yield
    root.handlers[:] = handlers
    if (root.level, logging.root.manager.disable) != (level, disabled):
        root.setLevel(level)
        logging.disable(disabled)


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
