"""The loop over the workers of a pool: hand out jobs, listen, replace the dead, stop when told."""

from __future__ import annotations

import os
import selectors
import signal
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import Any

from sizewise.signals import SignalHandlers
from sizewise.sweep.backend import LaunchOptions
from sizewise.sweep.identity import base_key
from sizewise.sweep.jobs import Job
from sizewise.sweep.progress import Progress
from sizewise.sweep.slot import Slot
from sizewise.sweep.state import JobState, describe_exit, is_done, job_state, record_failure

POLL_SECONDS = 0.5


class Pool:
    """Runs jobs on a set of slots; idle workers are left as they are at the end."""

    def __init__(
        self, slots: list[Slot], jobs: Sequence[Job], options: LaunchOptions, progress: Progress
    ) -> None:
        self._slots, self._options, self._progress = slots, options, progress
        self._waiting = list(jobs)
        self._elsewhere: list[Job] = []  # held by other processes
        self._tries: dict[str, int] = {}
        self._signals = 0
        self._failed_fast = False

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
        for slot in self._slots:
            if not self._stopping and slot.job is None and self._waiting:
                self._begin(slot, self._next(slot))
        busy = any(slot.job is not None for slot in self._slots)
        return busy or bool((self._waiting or self._elsewhere) and not self._stopping)

    @property
    def _stopping(self) -> bool:
        return self._signals > 0 or self._failed_fast

    def _begin(self, slot: Slot, job: Job) -> None:
        if slot.dead:
            self._selector.unregister(slot)
            slot.close()
        fresh = slot.process is None
        slot.start(job)
        if fresh:
            self._selector.register(slot, selectors.EVENT_READ)
        self._tries[job.identity.hash] = self._tries.get(job.identity.hash, 0) + 1
        self._progress.begin(slot, job)
        if self._signals:  # the worker was not there yet when the signal came
            slot.stop(self._stop_signal)

    def _next(self, slot: Slot) -> Job:
        """Prefer a job on the base that the worker has loaded, then one that nobody has."""
        bases = [base_key(job.config) for job in self._waiting]
        loaded = {other.base for other in self._slots}
        if slot.base in bases:
            return self._waiting.pop(bases.index(slot.base))
        free = [index for index, base in enumerate(bases) if base not in loaded]
        return self._waiting.pop(free[0] if free else 0)

    def _listen(self) -> None:
        events = self._selector.select(POLL_SECONDS)
        for key, _ in events:
            slot: Any = key.fileobj
            answer = self._read(slot)
            if answer is not None and slot.job is not None:
                job, slot.job = slot.job, None
                self._ended(slot, job, answer)
        self._look_elsewhere()
        self._progress.refresh(self._slots)

    def _read(self, slot: Slot) -> JobState | int | None:
        answer = slot.read()
        if isinstance(answer, int):
            self._selector.unregister(slot)
        return answer

    def _ended(self, slot: Slot, job: Job, answer: JobState | int) -> None:
        # Found held by another process, or taken over by one while this machine slept.
        if JobState.RUNNING in (answer, job_state(job.run_dir)):
            self._elsewhere.append(job)
            return
        stopped = self._stopping or is_done(job.run_dir)
        if not isinstance(answer, JobState) and not stopped:
            record_failure(job.run_dir, describe_exit(answer), returncode=answer)
        self._settle(slot, job)

    def _settle(self, slot: Slot, job: Job) -> None:
        state = job_state(job.run_dir)
        failed = state == JobState.FAILED
        if failed and self._tries[job.identity.hash] <= self._options.retries:
            self._waiting.append(job)
            self._progress.say(f"again   {job.identity.slug}")
            return
        self._progress.end(slot, job)
        if failed and self._options.fail_fast:
            self._failed_fast = True
            for other in self._slots:
                other.stop()

    def _look_elsewhere(self) -> None:
        for job in list(self._elsewhere):
            state = job_state(job.run_dir)
            if state == JobState.RUNNING:
                continue
            self._elsewhere.remove(job)
            if state in (JobState.DONE, JobState.PRUNED, JobState.FAILED):
                self._progress.end(None, job)
            else:  # whoever had it is gone
                self._waiting.append(job)

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
            if slot.job is not None:  # only after an error in this loop itself
                slot.stop(signal.SIGKILL)
                slot.job = None
                slot.close()
