"""Workers of a pool that are forks of it, in commands that have themselves been forked.

The command has imported all that its workers need; anew, that takes five seconds of each of them.
Workers that are begun as everywhere else run in tests/sweep/test_local.py, and in the commands of
tests/e2e/test_sweep_survives.py, tests/e2e/test_installed_wheel.py and tests/app/test_sweeps.py.
"""

from __future__ import annotations

import gc
import logging
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, NoReturn

import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from sizewise.job.execute import WORKER_MODULE, worker_arguments
from sizewise.sweep.launch.slot import Slot

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def fork_workers() -> None:
    """Let the pools of this process fork their workers from now on."""
    Slot._spawn = _spawn  # type: ignore[method-assign]


def _spawn(slot: Slot) -> None:
    # A lock that another thread holds would stay locked in the fork.
    alone = len(list(Path("/proc/self/task").iterdir())) == 1
    slot.process = (ForkedWorker if alone else subprocess.Popen)(
        [sys.executable, "-m", WORKER_MODULE, *worker_arguments()],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=slot.environment(),
    )  # fmt: skip


class ForkedWorker(subprocess.Popen[bytes]):
    """A worker that goes on from this process instead of a new interpreter."""

    def _execute_child(self, *given: Any) -> None:
        words, environment, pipes = given[0], given[6], given[10:16]
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        self.pid = os.fork()
        if self.pid == 0:
            _work(words[2:], environment, pipes[0], pipes[3])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        self._child_created = True
        self._close_pipe_fds(*pipes)


def _work(words: list[str], environment: Mapping[str, str], asked: int, answers: int) -> NoReturn:
    code: Any = 1
    try:
        _like_new(environment, asked, answers)
        sys.argv = words
        sys.modules.pop(words[0], None)
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        logging.shutdown()
        sys.stdout.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


def _like_new(environment: Mapping[str, str], asked: int, answers: int) -> None:
    """Leave of the pool what its workers would have imported, and nothing that it did."""
    logging.root.handlers.clear()
    logging.root.setLevel(logging.WARNING)
    logging.disable(logging.NOTSET)
    gc.freeze()  # files of the pool that nobody holds any more are not closed later on
    os.dup2(asked, 0)
    os.dup2(answers, 1)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0, closefd=False), sys.__stdout__, sys.__stderr__
    tracker: Any = resource_tracker._resource_tracker  # type: ignore[attr-defined]
    tracker._fd = tracker._pid = None
    os.environ.clear()
    os.environ.update(environment)
    GlobalHydra.instance().clear()
    HydraConfig.instance().cfg = None
    torch.set_num_threads(int(environment.get("OMP_NUM_THREADS", torch.get_num_threads())))
    for number in HANDLED:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
