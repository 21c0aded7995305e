"""SIGINT and SIGTERM handed to one function for the time of a context."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
        came: the last signal that came.
        raises: whether ``handle`` raises KeyboardInterrupt.
    """

    raises = False

    def __init__(self, handle: Handler, even_ignored: bool = False, enabled: bool = True) -> None:
        self.before: dict[int, Any] = {}
        self.came: int | None = None
        self._handler, self._even_ignored, self._enabled = handle, even_ignored, enabled

    def __enter__(self) -> Self:
        if self._enabled and threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if self._even_ignored or signal.getsignal(number) != signal.SIG_IGN:
                    self.before[number] = signal.signal(number, self._hand_on)
        return self

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        self.came = number
        self._handler(number, frame)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


@contextmanager
def signals_held() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait for the end of the block: nothing in it is left half done."""
    held = SignalHandlers(lambda number, frame: None)
    try:
        with held:
            yield
    finally:
        if held.came is not None:
            signal.raise_signal(held.came)


def _noted() -> Iterator[SignalHandlers]:
    """Those that are in force now and to which a signal has come."""
    for number in SIGNALS:
        handlers = getattr(signal.getsignal(number), "__self__", None)
        if isinstance(handlers, SignalHandlers) and handlers.came is not None:
            yield handlers


def signal_noted() -> bool:
    """Whether a signal has come to the ``SignalHandlers`` that are in force now."""
    return next(_noted(), None) is not None


def raise_if_lost() -> None:
    """Raise again the KeyboardInterrupt of a signal, where nobody has got it.

    Python drops what a handler raises in the midst of a finaliser (``__del__``, a callback of the
    garbage collector), and the program goes on as if no signal had come. Whoever is about to begin
    something long asks here.
    """
    for handlers in _noted():
        if handlers.raises:
            raise KeyboardInterrupt(signal.Signals(handlers.came or signal.SIGINT).name)
