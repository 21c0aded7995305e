"""Encoder-decoder models (the T5 family)."""

from __future__ import annotations

from torch import Tensor

from sizewise.errors import TrainingError
from sizewise.training.halving import Batch
from sizewise.training.module import AnswerModule


class Seq2SeqModule(AnswerModule):
    """The encoder reads the prompt, the decoder writes the answer: ``labels`` (B, U) are its own.

    The T5 family overflows in 16-bit floating point (its activations exceed 65504): bf16 or fp32.
    """

    def answer_scores(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return logits (N, V) at the N answer positions and the answer tokens (N,)."""
        from sizewise.models.head import answer_logits, answer_targets

        return answer_logits(self.model, batch), answer_targets(batch, seq2seq=True)

    def count_tokens(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return tokens of encoder and decoder together, and those of the decoder's answers."""
        read, answered = super().count_tokens(batch)
        return read + answered, answered

    def on_fit_start(self) -> None:
        """Refuse fp16, then switch dropout on.

        Raises:
            TrainingError: the trainer computes in fp16.
        """
        if str(self.trainer.precision).startswith("16"):
            raise TrainingError(
                f"trainer.precision={self.trainer.precision} turns this model's activations into "
                "NaN. Choose bf16-mixed, bf16-true or 32-true."
            )
        super().on_fit_start()
