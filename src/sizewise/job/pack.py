"""Several jobs in one process, one at a time, that meet where they share a pass over their base.

Each job is a coroutine (a greenlet) that runs ``execute`` as a process of its own would. It goes on
until it waits for a shared pass, or ends; then the next one does. What belongs to a job and not to
the process is put aside meanwhile: random states, torch's modes, log and output, signal handlers.
"""

from __future__ import annotations

import contextvars
import logging
import os
import random
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch
from greenlet import getcurrent, greenlet
from hydra.core.hydra_config import HydraConfig
from numpy.random import MT19937, mtrand

from sizewise.errors import SizewiseError
from sizewise.job.bases import plan_job
from sizewise.job.execute import JobResult, execute
from sizewise.job.submit import load_job
from sizewise.models.plan.planner import MemoryPlan
from sizewise.record.logs import output_to_log, send_output
from sizewise.record.state import JobState
from sizewise.runtime import resolve_device, same_random_state
from sizewise.signals import SIGNALS, SignalHandlers
from sizewise.training.group_size import GroupSize
from sizewise.training.pack import Pack, set_torch_random, sit, torch_random


def execute_together(
    run_dirs: Sequence[Path], ended: Callable[[JobResult], None], kept: Path | None = None
) -> None:
    """Run the submitted jobs of ``run_dirs``, each as ``execute`` would, and tell of each end.

    A job that another process holds, or that is done, is simply not in the pack.

    Args:
        run_dirs: directories with a ``job.json`` each.
        ended: called with the result of a job as soon as it has ended.
        kept: where it is kept how many of such jobs should share a pass, or is to be once that was
            measured; None: all of them do.

    Raises:
        KeyboardInterrupt: a signal came; every job has saved its state.
    """
    crew = Crew(ended, GroupSize(how_many_fit(run_dirs), kept))
    crew.run(run_dirs)
    if crew.signal is not None:
        raise KeyboardInterrupt(signal.Signals(crew.signal).name)


def how_many_fit(run_dirs: Sequence[Path]) -> int:
    """Return how many of the jobs can share a pass in the memory of this GPU, as planned.

    All of them where there is none, or nothing can be planned.
    """
    count = len(run_dirs)
    try:
        cfg, _ = load_job(run_dirs[0])
        device = resolve_device(cfg.trainer)
        if device.type != "cuda":
            return count
        plan = plan_job(cfg, advise=False)
    except SizewiseError:  # the job says it itself
        return count
    room = torch.cuda.get_device_properties(device).total_memory
    return rows_that_fit(plan, room, count)


def rows_that_fit(plan: MemoryPlan, room: int, count: int) -> int:
    """Return how many of ``count`` jobs fit into ``room`` bytes in one pass; at least 1.

    Weights are there once, adapters, gradients and optimiser states of all jobs, activations and
    logits of those in the pass.
    """
    own = sum(plan.training.get(part, 0) for part in ("adapters", "gradients", "optimizer"))
    each = sum(plan.training.get(part, 0) for part in ("activations", "logits"))
    left = room - (plan.training_peak - own - each) - own * count
    return max(1, min(count, int(left // max(1, each))))


class Crew:
    """Jobs that take turns, and the signal that came for all of them."""

    def __init__(self, ended: Callable[[JobResult], None], size: GroupSize) -> None:
        self.pack = Pack(size)
        self.signal: int | None = None
        self._ended = ended
        self._error: BaseException | None = None

    def run(self, run_dirs: Sequence[Path]) -> None:
        """Give turns until every job has ended: to all that can go on, else to a pass's leader.

        Where this itself fails (nobody listens any more), every job saves its state first.
        """
        with SignalHandlers(self._note):
            home = ProcessState.here()
            members = [Member(self, run_dir) for run_dir in run_dirs]
            try:
                while members:
                    able = [member for member in members if not member.seat.waiting]
                    leader = None if able else self.pack.next_leader()
                    for member in able or [m for m in members if m.seat is leader]:
                        self._give_turn(member, home)
                    members = [member for member in members if not member.over]
            finally:
                home.restore()
                home.close()
        if self._error is not None:
            raise self._error

    def _give_turn(self, member: Member, home: ProcessState) -> None:
        try:
            if member.go_on(home):
                return
            home.restore()
            if member.result is not None:
                self._ended(member.result)
        except BaseException as error:
            if not member.over:
                raise
            self._error = error
            self.signal = self.signal or signal.SIGTERM

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number


class Member:
    """One job of a crew.

    Attributes:
        over: whether it has ended; ``result`` then says how, None where a signal ended it.
    """

    def __init__(self, crew: Crew, run_dir: Path) -> None:
        self.over = False
        self.result: JobResult | None = None
        self.seat = crew.pack.join(self._pause)
        self._crew, self._run_dir, self._told = crew, run_dir, False
        self._state: ProcessState | None = None
        self._hub = getcurrent()
        self._greenlet = greenlet(self._work)
        self._greenlet.gr_context = contextvars.copy_context()

    def go_on(self, home: ProcessState) -> bool:
        """Let the job run until it pauses or ends; return whether it goes on another time."""
        if self._state is None and self._crew.signal is not None:
            self.over = True  # it has not begun, and need not
            return False
        if self._state is not None and self.seat.random is not None:
            set_torch_random(self.seat.random)
        (self._state or home).restore()
        if self._state is not None:
            self._state.close()
        self.seat.resumed()
        self._greenlet.switch()
        self.seat.suspended()
        if self.over:
            self.seat.leave_passes()
            return False
        self.seat.random, self._state = torch_random(), ProcessState.here()
        return True

    def _pause(self) -> None:
        self._hub.switch()
        if self._crew.signal is not None and not self._told:
            self._told = True
            signal.raise_signal(self._crew.signal)

    def _work(self) -> None:
        sit(self.seat)
        mtrand.set_bit_generator(MT19937(0))  # another is put in its place meanwhile
        same_random_state()
        try:
            with output_to_log(self._run_dir):
                self.result = execute(self._run_dir)
        except KeyboardInterrupt as stopped:
            self._told = True
            self._crew.signal = getattr(signal.Signals, str(stopped), signal.SIGTERM)
        except OSError as error:  # its log cannot be written: the disk is full, or gone
            self.result = JobResult(self._run_dir, JobState.FAILED, message=str(error))
        finally:
            self.over = True


@dataclass(frozen=True)
class ProcessState:
    """What of a process belongs to the job that runs in it; torch's random states aside.

    ``numpy``: the generator behind NumPy's functions, of which every job has its own. ``output``:
    copies of the descriptors that output and errors go to, until ``close``.
    """

    python: Any
    numpy: Any
    grad: bool
    casts: tuple[tuple[str, bool, torch.dtype], ...]
    deterministic: tuple[bool, bool, bool]
    threads: int
    level: int
    handlers: tuple[logging.Handler, ...]
    main: tuple[list[str], Any]
    hydra: Any
    signals: dict[int, Any]
    output: tuple[int, int]

    @classmethod
    def here(cls) -> Self:
        """Take down the state as it is now."""
        root, cudnn = logging.getLogger(), torch.backends.cudnn
        return cls(
            python=random.getstate(),
            numpy=mtrand.get_bit_generator(),
            grad=torch.is_grad_enabled(),
            casts=tuple(
                (kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
                for kind in ("cpu", "cuda")
            ),
            deterministic=(
                torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
            ),
            threads=torch.get_num_threads(),
            level=root.level,
            handlers=tuple(root.handlers),
            main=(sys.argv, getattr(sys.modules["__main__"], "__spec__", None)),
            hydra=HydraConfig.instance().cfg,
            signals={number: signal.getsignal(number) for number in SIGNALS},
            output=(os.dup(1), os.dup(2)),
        )  # fmt: skip

    def restore(self) -> None:
        """Put the process into this state."""
        random.setstate(self.python)
        mtrand.set_bit_generator(self.numpy)
        self._restore_torch()
        root = logging.getLogger()
        if root.level != self.level:  # it is slow
            root.setLevel(self.level)
        root.handlers[:] = self.handlers
        sys.argv, sys.modules["__main__"].__spec__ = self.main
        HydraConfig.instance().cfg = self.hydra
        for number, handler in self.signals.items():
            signal.signal(number, handler)
        send_output(*self.output)

    def _restore_torch(self) -> None:
        torch.set_grad_enabled(self.grad)
        for kind, enabled, dtype in self.casts:
            torch.set_autocast_enabled(kind, enabled)
            torch.set_autocast_dtype(kind, dtype)
        torch.clear_autocast_cache()  # weights that were cast for another job
        torch.use_deterministic_algorithms(self.deterministic[0])
        torch.backends.cudnn.deterministic = self.deterministic[1]
        torch.backends.cudnn.benchmark = self.deterministic[2]
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)

    def close(self) -> None:
        for descriptor in self.output:
            os.close(descriptor)
