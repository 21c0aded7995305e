"""What one job must not leave to the next in the same process: random state, memory, peaks."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import random
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1


@contextmanager
def fresh_process_state() -> Iterator[None]:
    """Give a job the random state, environment and peaks of a new process, and clean up after."""
    environment, directory = dict(os.environ), Path.cwd()
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    _same_random_state()
    _reset_peaks()
    try:
        yield
    finally:
        os.chdir(directory)
        for name in [name for name in os.environ if name not in environment]:
            del os.environ[name]
        os.environ.update(environment)
        root.setLevel(level)
        root.handlers[:] = handlers
        _release_memory()


def _same_random_state() -> None:
    """Begin with the same random state as every other job, in libraries that were loaded."""
    random.seed(0)
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None:
        numpy.random.seed(0)
    if torch is not None:
        torch.manual_seed(0)
        torch.use_deterministic_algorithms(False)
        torch.set_grad_enabled(True)


def _release_memory() -> None:
    gc.collect()
    # What is left are libraries and the kept base: looking through them takes longer than all
    # else between two jobs. ``take_base`` thaws them before it lets a base go.
    gc.freeze()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        # glibc keeps freed memory; a long sweep would seem to grow.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _reset_peaks() -> None:
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    peaks = Path("/proc/self/clear_refs")
    if peaks.exists():
        try:
            peaks.write_text("5")  # Linux: start the peak of resident memory anew
        except PermissionError:
            return


def follow_parent(parent: int, number: signal.Signals = signal.SIGTERM) -> None:
    """Let this process get a signal when ``parent`` dies, so that nothing runs on unseen.

    Ends the process at once if the parent died before it could be followed: the system tells only
    of deaths that are still to come.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:
            raise SystemExit(128 + number)
