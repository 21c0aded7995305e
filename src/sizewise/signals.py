"""SIGINT and SIGTERM handed to one function for the time of a context."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
Handler = Callable[[int, FrameType | None], None]


class SignalHandlers:
    """Context in which ``handle`` gets SIGINT and SIGTERM; afterwards what was there is back.

    A signal that was ignored stays ignored unless ``even_ignored``. Outside the main thread, where
    Python delivers none, and if not ``enabled``, nothing is installed.

    Attributes:
        before: the handlers that were replaced, by signal.
    """

    def __init__(self, handle: Handler, even_ignored: bool = False, enabled: bool = True) -> None:
        self.before: dict[int, Any] = {}
        self._handler, self._even_ignored, self._enabled = handle, even_ignored, enabled

    def __enter__(self) -> Self:
        if self._enabled and threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if self._even_ignored or signal.getsignal(number) != signal.SIG_IGN:
                    self.before[number] = signal.signal(number, self._handler)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
