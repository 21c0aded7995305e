"""What a fit costs: seconds, tokens, peak memory; cumulative over interruptions."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning import LightningModule as Module

from sizewise.devices import PeakMemory
from sizewise.training.lightning_internals import State
from sizewise.training.seat import current_seat, job_clock, wait_for_device


class FitMeter(Callback):
    """Counts what training uses; validations and checkpoints stop the clock.

    Of a pass that several jobs share, each takes an equal part of the seconds; ``packed`` is how
    many shared one, on average.
    ``peak_bytes``: highest device memory (or resident set of the process) seen so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.peak_bytes = 0
        self._passes = self._shared = 0
        self._tokens = self._answer_tokens = 0
        self._since: float | None = None
        self._memory: PeakMemory | None = None
        self._world: tuple[Trainer, torch.device] | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: Module) -> None:
        self._world = (trainer, pl_module.device)
        self._memory = PeakMemory(pl_module.device)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Module, batch: Any, batch_idx: int
    ) -> None:
        if self._since is None:
            self._since = job_clock()
        self._tokens += batch["tokens"]
        self._answer_tokens += batch["answer_tokens"]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Module, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        seat = current_seat()
        self._passes += 1
        self._shared += 1 if seat is None else seat.together

    @property
    def packed(self) -> float:
        return self._shared / self._passes if self._passes else 1.0

    def on_train_end(self, trainer: Trainer, pl_module: Module) -> None:
        self.pause()

    def pause(self) -> None:
        """Stop the clock until the next batch and read the peak."""
        if self._since is not None and self._world is not None:
            wait_for_device(self._world[1])
            self.seconds += job_clock() - self._since
            self._since = None
        if self._memory is not None:
            self.peak_bytes = max(self.peak_bytes, self._memory.read() or 0)

    def tokens(self) -> tuple[int, int]:
        """Return (all, answer) tokens trained on so far, padding excluded, over all ranks."""
        pair = torch.tensor([self._tokens, self._answer_tokens])
        if self._world is not None and self._world[0].world_size > 1:
            trainer, device = self._world
            pair = trainer.strategy.reduce(pair.to(device), reduce_op="sum").cpu()
        return int(pair[0]), int(pair[1])

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Module, checkpoint: State) -> None:
        self.pause()
        tokens, answer_tokens = self.tokens()
        checkpoint["sizewise_meter"] = {
            "seconds": self.seconds, "peak_bytes": self.peak_bytes,
            "tokens": tokens, "answer_tokens": answer_tokens,
            "passes": self._passes, "shared": self._shared,
        }  # fmt: skip

    def on_load_checkpoint(self, trainer: Trainer, pl_module: Module, checkpoint: State) -> None:
        """Go on from stored figures; the first rank holds the sums of all."""
        stored, first = checkpoint["sizewise_meter"], trainer.is_global_zero
        self.seconds, self.peak_bytes = stored["seconds"], stored["peak_bytes"]
        self._passes, self._shared = stored.get("passes", 0), stored.get("shared", 0)
        self._tokens = stored["tokens"] if first else 0
        self._answer_tokens = stored["answer_tokens"] if first else 0
