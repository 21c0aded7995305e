"""The local launcher: one worker per GPU, or a few that share the processor."""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from sizewise.composition.inputs import check_places
from sizewise.errors import SizewiseError, SweepError
from sizewise.job.execute import STOPPED_EXIT
from sizewise.job.submit import Job
from sizewise.record.claims import holder
from sizewise.record.state import (
    ENDED,
    JobState,
    describe_exit,
    is_done,
    job_state,
    read_failure,
    record_failure,
)
from sizewise.signals import SignalHandlers
from sizewise.sweep.launch.backend import LaunchOptions
from sizewise.sweep.launch.packing import ALONE, Packing, choose_packing, may_pack, pack_key
from sizewise.sweep.launch.progress import Progress
from sizewise.sweep.launch.slot import Slot
from sizewise.sweep.launch.waiting import SMALL_MODEL, Waiting, rough_size
from sizewise.sweep.plan import refusal


def jobs_at_once(jobs: Sequence[Job]) -> int:
    """Return how many jobs the processor runs side by side unless ``n_jobs`` says so.

    One per core where every model is small and each job is one process; otherwise one, which then
    has all cores and all memory.
    """
    small = all(0 < rough_size(job.config) <= SMALL_MODEL for job in jobs)
    alone = all((job.config.get("trainer") or {}).get("devices", 1) == 1 for job in jobs)
    return available_cores() if small and alone else 1


def check_inputs(jobs: Sequence[Job]) -> None:
    """Raise SweepError, with the jobs' overrides, where a file or folder is not on this machine."""
    missing: dict[str, list[str]] = {}
    for number, job in enumerate(jobs, start=1):
        try:
            check_places(job.config)
        except SizewiseError as error:
            name = f"job {number} ({' '.join(job.overrides)})"
            missing.setdefault(str(error), []).append(name)
    if missing:
        raise SweepError(refusal(missing, len(jobs)))


class LocalBackend:
    """A pool of worker processes on this machine (see ``LocalLauncherConf`` for the options)."""

    def __init__(
        self,
        n_jobs: int | None = None,
        gpus: Sequence[str] | None = None,
        threads: int | None = None,
        progress: bool | None = None,
    ) -> None:
        self._n_jobs = available_cores() if n_jobs == -1 else n_jobs
        self._threads, self._progress = threads, progress
        for name, value in (("n_jobs", self._n_jobs), ("threads", threads)):
            if value is not None and value < 1:
                raise SweepError(
                    f"hydra.launcher.{name}={value} lets nothing run. Set 1 or more, or null for "
                    "what suits the jobs; n_jobs=-1 is one job per core."
                )
        self._all_gpus = visible_gpus() if gpus is None else [str(name) for name in gpus]
        self._gpus = self._all_gpus
        self._given_gpus = gpus is not None
        self._devices = 1
        self._on_cpu = 1
        self._slots: list[Slot] = []
        self._said = ""

    @property
    def slots(self) -> int:
        """One per GPU (or group of GPUs), else ``n_jobs``, else what suits the models."""
        if self._gpus:
            groups = len(self._gpus) // self._devices
            return min(groups, self._n_jobs) if self._n_jobs else groups
        return self._n_jobs or self._on_cpu

    def check(self, jobs: Sequence[Job]) -> None:
        """Raise if a job asks for more GPUs than there are, or for files that are not."""
        check_inputs(jobs)
        trainers = [job.config.get("trainer") or {} for job in jobs]
        on_cpu = trainers and all(trainer.get("accelerator") == "cpu" for trainer in trainers)
        self._gpus = [] if on_cpu else self._all_gpus
        self._on_cpu = jobs_at_once(jobs)
        self._devices = max((trainer.get("devices") or 1 for trainer in trainers), default=1)
        if self._gpus and self._devices > len(self._gpus):
            raise SweepError(
                f"trainer.devices={self._devices}, but only {len(self._gpus)} GPUs are visible "
                f"({', '.join(self._gpus)}). Lower trainer.devices or show more GPUs."
            )

    def run(self, jobs: Sequence[Job], options: LaunchOptions) -> None:
        if not jobs:
            return
        self.check(jobs)
        self._make_room(len(jobs))
        packing = self.packing(options.packing, jobs)
        with Progress(len(jobs), self._progress, options.sweep_dir) as progress:
            if packing.why and packing.why != self._said:
                progress.say(packing.why)
                self._said = packing.why
            Pool(self._slots, jobs, self._growing(options), progress, packing).run()

    def _make_room(self, jobs: int) -> None:
        """Add places for so many jobs; workers stay, unless GPUs are now divided in another way."""
        places = self.places(jobs)
        pairs = zip(self._slots, places, strict=False)
        if any(slot.gpus != place.gpus for slot, place in pairs):
            self.close()
        self._slots += places[len(self._slots) :]

    def _growing(self, options: LaunchOptions) -> LaunchOptions:
        """Let there be room for jobs that become due later, also where few were there at first."""
        due = options.more
        if due is None or self.by_stages(options.packing):
            return replace(options, more=None)

        def more(busy: Collection[Path]) -> list[Job]:
            jobs = due(busy)
            self._make_room(len(busy) + len(jobs))
            return jobs

        return replace(options, more=more)

    def by_stages(self, packing: Any) -> bool:
        """Whether jobs of a rung wait for all of the one before: those due together are packed.

        After ``check``; ``packing``: as ``sweep.packing``.
        """
        return may_pack(packing, bool(self._gpus))

    def packing(self, asked: Any, jobs: Sequence[Job]) -> Packing:
        """Return which of the jobs share passes, after ``check``; ``asked``: ``sweep.packing``."""
        return choose_packing(asked, jobs, bool(self._gpus))

    def places(self, jobs: int) -> list[Slot]:
        """Return where so many jobs run, after ``check``: as many workers, with none begun yet."""
        count = min(self.slots, jobs)
        threads = self._threads or max(1, available_cores() // max(count, 1))
        return [Slot(number, self._share(number), threads) for number in range(count)]

    def close(self) -> None:
        """End the workers; until then they keep what they have loaded."""
        for slot in self._slots:
            slot.close()
        self._slots = []

    def _share(self, number: int) -> list[str] | None:
        if not self._gpus:
            return [] if self._given_gpus else None
        return self._gpus[number * self._devices : (number + 1) * self._devices]


POLL_SECONDS = 0.5
# A job that a signal stops again and again, of whatever origin, is called failed after so often.
MOST_STOPS = 3
# To ask what is due next takes at most one part in so many of the time.
PATIENCE = 20


class Pool:
    """Runs jobs on a set of slots; idle workers are left as they are at the end.

    A worker takes several at once where they can share passes, as ``packing`` says. One that has
    nothing to do while others work is given what has become due since (``LaunchOptions.more``).
    """

    def __init__(
        self,
        slots: list[Slot],
        jobs: Sequence[Job],
        options: LaunchOptions,
        progress: Progress,
        packing: Packing = ALONE,
    ) -> None:
        self._slots, self._options, self._progress = slots, options, progress
        self.waiting: Waiting[Job] = Waiting(jobs, options.as_given)
        self.elsewhere: list[Job] = []  # held by other processes
        self._packing = packing
        self._keys: dict[str, str | None] = {}
        self._tries: dict[str, int] = {}
        self._stops: Counter[str] = Counter()
        self._signals = 0
        self._failed_fast = False
        self._more = options.more
        self._news = False  # a job has ended since it was asked what is due now
        self._not_before = 0.0

    def run(self) -> None:
        """Run until every job has ended; raises KeyboardInterrupt when told to stop."""
        # Also where Ctrl-C is ignored, as in a background shell: workers never outlive a stop.
        signals = SignalHandlers(self._on_signal, even_ignored=True)
        with selectors.DefaultSelector() as self._selector, signals:
            for slot in self._slots:
                if slot.process is not None:
                    self._selector.register(slot, selectors.EVENT_READ)
            try:
                while self._hand_out():
                    self._listen()
            finally:
                self._leave()
        if self._signals:
            raise KeyboardInterrupt

    def _hand_out(self) -> bool:
        """Start what can be started; return whether there is anything left to wait for."""
        if not self._stopping:
            self._ask_for_more()
        idle = [slot for slot in self._slots if not slot.jobs]
        for slot in sorted(idle, key=lambda slot: not self.waiting.wants(slot.base)):
            if not self._stopping:
                self.begin_next(slot)
        busy = any(slot.jobs for slot in self._slots)
        return busy or bool((self.waiting or self.elsewhere) and not self._stopping)

    @property
    def _stopping(self) -> bool:
        return self._signals > 0 or self._failed_fast

    def _ask_for_more(self) -> None:
        """Where a worker has nothing to do while others work, begin what has become due since."""
        if self._more is None or self.waiting or not self._news:
            return
        busy = [*self.elsewhere, *(job for slot in self._slots for job in slot.jobs)]
        if not busy or all(slot.jobs for slot in self._slots):
            return
        if (now := time.monotonic()) < self._not_before:
            return
        try:
            jobs = self._more({job.run_dir for job in busy})
        except Exception as error:  # if it stays so, the next stage raises it
            self._progress.say(
                f"What is due next is not known ({error}); that is tried again when these end."
            )
            self._more = None
            return
        self._news = False
        self._not_before = now + PATIENCE * (time.monotonic() - now)
        self._progress.add(jobs)
        for job in jobs:
            self._forget(job)
            self.waiting.put(job)

    def _forget(self, job: Job) -> None:
        """Count the tries of a job from its beginning: it goes on from where it was to stop."""
        self._tries.pop(job.identity.hash, None)
        self._stops.pop(job.identity.hash, None)

    def begin_next(self, slot: Slot) -> None:
        """Begin a job that no other process holds; those that one holds are waited for."""
        while self.waiting:
            job = self.waiting.take(slot.base, {other.base for other in self._slots})
            if holder(job.run_dir) is None:
                self._begin(slot, [job, *self._mates(job)])
                return
            self._wait_for(job)

    def _mates(self, job: Job) -> list[Job]:
        """Take the jobs that are packed with ``job``; no more than leaves some for every slot."""
        key = self._key(job)
        share = -(-(1 + len(self.waiting)) // max(1, len(self._slots)))
        most = min(self._packing.most, share) - 1
        if key is None or most < 1:
            return []
        taken = self.waiting.take_like(job, lambda other: self._key(other) == key, most)
        held = [mate for mate in taken if holder(mate.run_dir) is not None]
        for mate in held:
            self._wait_for(mate)
        return [mate for mate in taken if mate not in held]

    def _key(self, job: Job) -> str | None:
        name = job.identity.hash
        if name not in self._keys:
            self._keys[name] = pack_key(job)
        return self._keys[name]

    def _wait_for(self, job: Job) -> None:
        self._news = True  # it may have come to a rung before another process took it
        self.elsewhere.append(job)
        self._progress.held(job)

    def _begin(self, slot: Slot, jobs: Sequence[Job]) -> None:
        if slot.dead:
            self._selector.unregister(slot)
            slot.close()
        fresh = slot.process is None
        slot.start(jobs, self._packing.kept(jobs[0]))
        if fresh:
            self._selector.register(slot, selectors.EVENT_READ)
        for job in jobs:
            self._tries[job.identity.hash] = self._tries.get(job.identity.hash, 0) + 1
            self._progress.begin(slot, job)
        if self._signals:  # the worker was not there yet when the signal came
            slot.stop(self._stop_signal)

    def _listen(self) -> None:
        events = self._selector.select(POLL_SECONDS)
        for key, _ in events:
            slot: Any = key.fileobj
            ended = slot.read()
            if slot.process is None:
                self._selector.unregister(slot)
            for each in ended:
                self.ended(slot, each.job, each.answer, each.message)
        self.look_elsewhere()
        self._progress.refresh()

    def ended(
        self, slot: Slot, job: Job, answer: JobState | int, message: str | None = None
    ) -> None:
        # Found held by another process, or taken over by one while this machine slept.
        if JobState.RUNNING in (answer, job_state(job.run_dir)):
            self._wait_for(job)
            return
        stopped = self._stopping or is_done(job.run_dir)
        if not isinstance(answer, JobState) and not stopped:
            if self._not_its_fault(slot, job, answer):
                return
            record_failure(job.run_dir, describe_exit(answer), returncode=answer)
        if answer == JobState.FAILED and read_failure(job.run_dir) is None:
            record_failure(job.run_dir, message or "it left no record of its failure")
        self._settle(slot, job)

    def _not_its_fault(self, slot: Slot, job: Job, code: int) -> bool:
        """Let a job wait again whose worker was stopped from outside, or died with a whole pack.

        The try is not counted. A job of a pack goes alone then, which shows who was to blame.
        """
        name = job.identity.hash
        if code == STOPPED_EXIT and self._stops[name] < MOST_STOPS:
            self._stops[name] += 1
            why = "it was stopped"
        elif code != STOPPED_EXIT and slot.packed:
            self._keys[name] = None
            why = f"alone, {describe_exit(code)}"
        else:
            return False
        self._tries[name] -= 1
        self.waiting.put(job)
        self._progress.say(f"again   {job.identity.slug}: {why}")
        return True

    def _settle(self, slot: Slot, job: Job) -> None:
        state = job_state(job.run_dir)
        failed = state == JobState.FAILED
        if failed and self._tries[job.identity.hash] <= self._options.retries:
            self.waiting.put(job)
            self._progress.say(f"again   {job.identity.slug}")
            return
        self._progress.end(slot, job)
        self.waiting.ended(job)
        self._news = True
        if failed and self._options.fail_fast:
            self._failed_fast = True
            for other in self._slots:
                other.stop()

    def look_elsewhere(self) -> None:
        for job in list(self.elsewhere):
            state = job_state(job.run_dir)
            if state == JobState.RUNNING:
                continue
            self.elsewhere.remove(job)
            self._news = True
            if state in ENDED:
                self._progress.end(None, job)
            else:  # whoever had it is gone
                self.waiting.put(job)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1
        for slot in self._slots:
            slot.stop(self._stop_signal)
        if self._signals == 1:
            # Not through sys.stderr: the signal may have come in the midst of writing there.
            with suppress(OSError):
                os.write(2, b"\nStopping; running jobs can be resumed. Once more: at once.\n")

    @property
    def _stop_signal(self) -> signal.Signals:
        return signal.SIGTERM if self._signals == 1 else signal.SIGKILL

    def _leave(self) -> None:
        for slot in self._slots:
            if slot.jobs:  # only after an error in this loop itself
                slot.stop(signal.SIGKILL)
                slot.jobs = []
                slot.close()


def visible_gpus() -> list[str]:
    """Return the names that CUDA_VISIBLE_DEVICES allows, else those of the driver's tool."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        names = [name.strip() for name in allowed.split(",")]
        return [name for name in names if name and name != "-1"]
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, "--query-gpu=index", "--format=csv,noheader"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.split() if answer.returncode == 0 else []


def available_cores() -> int:
    """Return how many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
