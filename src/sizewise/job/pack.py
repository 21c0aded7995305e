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
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Self

import torch
from greenlet import getcurrent, greenlet
from hydra.core.hydra_config import HydraConfig
from numpy.random import MT19937, mtrand

from sizewise.config import RunConfig
from sizewise.job.bases import plan_job
from sizewise.job.execute import JobResult, execute
from sizewise.job.submit import load_job
from sizewise.models.plan.planner import MemoryPlan
from sizewise.record.logs import output_to_log, send_output
from sizewise.record.state import JobState
from sizewise.runtime import resolve_device, same_random_state
from sizewise.signals import SignalHandlers, signal_noted
from sizewise.training.group_size import GroupSize, evenly
from sizewise.training.pack import Pack
from sizewise.training.seat import set_torch_random, sit, torch_random

log = logging.getLogger(__name__)


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
    room = room_for(run_dirs)
    for some in evenly(run_dirs, room.members):
        size = GroupSize(min(room.rows, len(some)), kept)
        crew = Crew(ended, Pack(size, GroupSize(room.answers)))
        crew.run(some)
        if crew.signal is not None:
            raise KeyboardInterrupt(signal.Signals(crew.signal).name)


class PackRoom(NamedTuple):
    """How many jobs can be in memory at once, and how many of them train and answer in one pass."""

    members: int
    rows: int
    answers: int


def room_for(run_dirs: Sequence[Path]) -> PackRoom:
    """Return what the memory of this GPU has room for, as planned for the hungriest of the jobs.

    All of them where there is no GPU, or nothing can be planned.
    """
    everything = PackRoom(len(run_dirs), len(run_dirs), len(run_dirs))
    try:
        jobs = [load_job(run_dir)[0] for run_dir in run_dirs]
        device = resolve_device(jobs[0].trainer)
        if device.type != "cuda":
            return everything
        # Optimisers, targets, batches of answers and the like may have other needs; of ranks the
        # highest has the most.
        kinds = {_kind(cfg): cfg for cfg in sorted(jobs, key=lambda cfg: cfg.lora.r)}
        plans = [plan_job(cfg, advise=False) for cfg in kinds.values()]
    except Exception as error:  # of whatever kind: the jobs meet it themselves, and say it
        log.warning("How many jobs fit into memory is not known: %s", error)
        return everything
    total = torch.cuda.get_device_properties(device).total_memory
    rooms = [fitting(plan, total, len(run_dirs)) for plan in plans]
    return PackRoom(*map(min, zip(*rooms, strict=True)))


def _kind(cfg: RunConfig) -> str:
    same_size = replace(cfg.lora, r=1, alpha=None, alpha_ratio=None, dropout=0.0, init_seed=None)
    answers = (cfg.evaluation.batch_size, cfg.generation.max_new_tokens)
    return repr((same_size, cfg.optimizer.target, cfg.optimizer.kwargs, answers))


def _own(plan: MemoryPlan) -> int:
    """Bytes that a job holds while others are trained too."""
    return sum(plan.training.get(part, 0) for part in ("adapters", "gradients", "optimizer"))


def fitting(plan: MemoryPlan, room: int, count: int) -> PackRoom:
    """Return how many of ``count`` jobs fit into ``room`` bytes; at least 1.

    Weights are there once, adapters, gradients and optimiser states of all members, activations and
    logits, or keys and values, of those in a pass.
    """
    own = _own(plan)
    spare = room - max(plan.training_peak, plan.generation_peak)
    members = max(1, min(count, 1 + spare // max(1, own)))

    def passing(peak: int, each: int) -> int:
        left = room - (peak - each) - own * members
        return max(1, min(members, left // max(1, each)))

    training = sum(plan.training.get(part, 0) for part in ("activations", "logits"))
    answering = sum(plan.generation.get(part, 0) for part in ("activations", "kv_cache"))
    return PackRoom(
        members,
        passing(plan.training_peak - own, training),
        passing(plan.generation_peak, answering),
    )


class Crew:
    """Jobs that take turns, and the signal that came for all of them."""

    def __init__(self, ended: Callable[[JobResult], None], pack: Pack) -> None:
        self.pack = pack
        self.signal: int | None = None
        self._ended = ended
        self._error: BaseException | None = None

    def run(self, run_dirs: Sequence[Path]) -> None:
        """Give turns until every job has ended: to all that can go on, else to a pass's leader.

        Where this itself fails (nobody listens any more), every job saves its state first.
        """
        with self.listening():
            home = ProcessState.here()
            members = [Member(self, run_dir) for run_dir in run_dirs]
            try:
                while members:
                    for member in self._next(members):
                        self._give_turn(member, home)
                    members = [member for member in members if not member.over]
            finally:
                home.restore()
                home.close()
        if self._error is not None:
            raise self._error

    def _next(self, members: Sequence[Member]) -> list[Member]:
        able = [member for member in members if not member.seat.waiting]
        if able:
            return able
        try:
            leader = self.pack.next_leader()
        except Exception as error:
            if self._error is not None:
                raise
            self._stop(error)
            # Whatever failed, without it they come to an end.
            self.pack.size = self.pack.answering = GroupSize(1)
            leader = self.pack.next_leader()
        return [member for member in members if member.seat is leader]

    def _give_turn(self, member: Member, home: ProcessState) -> None:
        try:
            if member.go_on(home):
                return
            home.restore()
            if member.result is not None:
                self._ended(member.result)
        except BaseException as error:
            member.leave()
            self._stop(error)

    def _stop(self, error: BaseException) -> None:
        """Let all save their state and leave; the first error is the one that is raised."""
        self._error = self._error or error
        self.signal = self.signal or signal.SIGTERM

    def listening(self) -> SignalHandlers:
        """Context of what is nobody's turn: a signal that comes then is for all of them."""
        return SignalHandlers(self._note)

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
            self.leave()  # it has not begun, and need not
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
            self.leave()
            return False
        self.seat.random, self._state = torch_random(), ProcessState.here()
        return True

    def leave(self) -> None:
        self.over = True
        self.seat.leave_passes()

    def _pause(self) -> None:
        with self._crew.listening():
            self._hub.switch()
        if self._crew.signal is not None and not self._told:
            self._told = True
            if not signal_noted():  # a second one would stop it at once
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
