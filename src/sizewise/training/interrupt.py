"""Ctrl-C and SIGTERM: finish the optimiser step, save, leave."""

from __future__ import annotations

import logging
import signal
from types import FrameType, TracebackType
from typing import NoReturn, Self

import torch
from pytorch_lightning import Trainer

from sizewise.signals import SignalHandlers, raise_if_lost

log = logging.getLogger(__name__)


class Stopped(BaseException):
    """Leaves a fit whose state has been saved; passes through ``except Exception``."""


class StopRequest(SignalHandlers):
    """Context in which the first signal asks the fit to stop, and a second one stops it at once.

    What a signal means is left to whoever handled it before: after the state has been saved that
    handler is called (Python's own raises KeyboardInterrupt). A signal that was ignored stays
    ignored, and outside the main thread, where Python delivers none, nothing is installed.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        super().__init__(self._note)

    def __enter__(self) -> Self:
        """Begin, unless a signal has come before.

        Raises:
            KeyboardInterrupt: one came and was lost.
        """
        raise_if_lost()
        return super().__enter__()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise Stopped
        self.signal = number
        log.warning("Stopping after this optimiser step; a second signal stops at once.")

    def agreed(self, trainer: Trainer) -> bool:
        """Whether to stop; all ranks give the same answer."""
        if trainer.world_size == 1:
            return self.signal is not None
        flag = torch.tensor(self.signal or 0, device=trainer.strategy.root_device)
        highest = int(trainer.strategy.reduce(flag, reduce_op="max"))
        self.signal = highest or None
        return self.signal is not None

    def leave(self) -> None:
        raise Stopped

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Hand on a signal that came, also one that came too late for the fit to notice."""
        super().__exit__(kind, error, trace)
        if self.signal is not None and (kind is None or issubclass(kind, (Stopped, Exception))):
            self.raise_to_caller()

    def raise_to_caller(self) -> NoReturn:
        """End as the signal would have without this context.

        Raises:
            KeyboardInterrupt: from the handler before, or for a signal without one.
            SystemExit: 128 + signal, for SIGTERM without a handler.
        """
        number = self.signal or signal.SIGINT
        handler = self.before.get(number)
        if callable(handler):
            handler(number, None)
        if number == signal.SIGTERM:
            raise SystemExit(128 + number)
        raise KeyboardInterrupt
