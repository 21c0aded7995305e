"""A running sum of negative log-likelihood and tokens."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import Tensor


class LossWindow:
    """Sums over micro-batches without waiting for the device; read when it is time to log."""

    def __init__(self) -> None:
        self.nll: Tensor | float = 0.0
        self.tokens = 0

    def add(self, nll: Tensor, tokens: int) -> None:
        """Add the summed negative log-likelihood (nats) of ``tokens`` tokens."""
        wide = torch.float32 if nll.device.type == "mps" else torch.float64
        self.nll = self.nll + nll.detach().to(wide)
        self.tokens += tokens

    def clear(self) -> None:
        """Begin a new sum."""
        self.nll, self.tokens = 0.0, 0

    def total(self) -> float:
        """Summed negative log-likelihood of this rank; waits for the device."""
        return float(self.nll)

    def sum_over_ranks(self, module: pl.LightningModule) -> tuple[float, int]:
        """Return the summed negative log-likelihood and the tokens over all ranks."""
        nll, tokens = self.total(), self.tokens
        if module.trainer.world_size > 1:
            pair = torch.tensor([nll, tokens], dtype=torch.float64, device=module.device)
            summed = module.trainer.strategy.reduce(pair, reduce_op="sum")
            nll, tokens = float(summed[0]), int(summed[1])
        return nll, tokens

    def mean_over_ranks(self, module: pl.LightningModule) -> float:
        """Return the mean per token over all ranks; NaN without any token."""
        nll, tokens = self.sum_over_ranks(module)
        return nll / tokens if tokens else float("nan")
