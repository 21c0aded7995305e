"""Ctrl-C and SIGTERM: finish the optimiser step, save, leave."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

import pytorch_lightning as pl
import torch

log = logging.getLogger(__name__)
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """Leaves a fit whose state has been saved; passes through ``except Exception``."""


class StopRequest:
    """Context in which the first signal asks the fit to stop, and a second one stops it at once.

    Outside the main thread Python delivers no signals, and nothing is installed.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in SIGNALS}
            for number in SIGNALS:
                signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            signal.signal(number, signal.SIG_IGN)
            self.signal = number
            raise Stopped
        self.signal = number
        log.warning("Stopping after this optimiser step; a second signal stops at once.")

    def agreed(self, trainer: pl.Trainer) -> bool:
        """Whether to stop; all ranks give the same answer."""
        if trainer.world_size == 1:
            return self.signal is not None
        flag = torch.tensor(self.signal or 0, device=trainer.strategy.root_device)
        highest = int(trainer.strategy.reduce(flag, reduce_op="max"))
        self.signal = highest or None
        return self.signal is not None

    def leave(self) -> None:
        """Leave the fit."""
        raise Stopped

    def raise_to_caller(self) -> None:
        """End as the signal asks: KeyboardInterrupt, or exit status 128 + signal."""
        if self.signal == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt
