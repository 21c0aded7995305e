"""Causal language models."""

from __future__ import annotations

from torch import Tensor

from sizewise.training.halving import Batch
from sizewise.training.module import AnswerModule


class CausalModule(AnswerModule):
    """A decoder-only model: one sequence holds prompt and answer; labels align with the inputs."""

    def answer_scores(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return logits (N, V) at the N answer positions and the answer tokens (N,)."""
        from sizewise.models.head import answer_logits, answer_targets

        return answer_logits(self.model, batch), answer_targets(batch)
