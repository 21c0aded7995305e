"""SIGINT and SIGTERM while a job runs: the first stops it cleanly, the second at once."""

from __future__ import annotations

import os
import signal
from types import FrameType

from sizewise.signals import SignalHandlers


class Interrupts(SignalHandlers):
    """Remember a signal and raise KeyboardInterrupt in the main thread.

    Libraries turn KeyboardInterrupt into other exceptions, so ``received`` is what tells whether
    the job was stopped from outside. Does nothing outside the main thread or if not ``enabled``.
    A worker ignores SIGINT on purpose (its pool decides when it stops), and so it stays.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.received: int | None = None
        super().__init__(self._handle, enabled=enabled)

    @property
    def name(self) -> str:
        """Name of the signal that was received."""
        return signal.Signals(self.received or signal.SIGINT).name

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + number)
        self.received = number
        raise KeyboardInterrupt(signal.Signals(number).name)
