"""SIGINT and SIGTERM while a job runs: the first stops it cleanly, the second at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Remember a signal and raise KeyboardInterrupt in the main thread.

    Libraries turn KeyboardInterrupt into other exceptions, so ``received`` is what tells whether
    the job was stopped from outside. Does nothing outside the main thread or if not ``enabled``.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.received: int | None = None
        self._enabled = enabled and threading.current_thread() is threading.main_thread()
        self._previous: dict[int, Any] = {}

    @property
    def name(self) -> str:
        """Name of the signal that was received."""
        return signal.Signals(self.received or signal.SIGINT).name

    def __enter__(self) -> Interrupts:
        if self._enabled:
            for number in SIGNALS:
                # A worker ignores SIGINT on purpose: its pool decides when it stops.
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + number)
        self.received = number
        raise KeyboardInterrupt(signal.Signals(number).name)
