"""The Lightning module of a fit: loss, optimiser, schedule, validation loss; a class per family."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, Self

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from sizewise.devices import BatchSize, halve_on_oom
from sizewise.errors import DivergedError, ModelError, TrainingError
from sizewise.models.base import is_quantized
from sizewise.models.encoder import class_logits
from sizewise.models.head import (
    Loss,
    answer_logits,
    answer_losses,
    answer_targets,
    some_examples,
)
from sizewise.training.optimizer import OptimizerFactory, SchedulerFactory
from sizewise.training.seat import current_seat, wait_for_device
from sizewise.training.sharding import is_sharded, shard, whole
from sizewise.training.trainable import load_trainable, trainable_state


def answer_loss(
    logits_NV: Tensor, targets_N: Tensor, step_tokens: int | Tensor, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Cross entropy of one micro-batch as its share of the whole optimiser step.

    The sum over the micro-batches of a step (and over ranks) is the mean over the step's answer
    tokens, so that k accumulated micro-batches give exactly the gradient of the one large batch;
    a mean of their means would not, because they hold different numbers of tokens.

    Args:
        step_tokens: answer tokens of the whole step, over its micro-batches and ranks.
        label_smoothing: share of the target's mass spread over the vocabulary (Szegedy et al.
            2016, section 7); it changes the loss, never the reported likelihood.

    Returns:
        The loss (scalar with a gradient) and the plain summed negative log-likelihood in nats
        (scalar without one).
    """
    logits_NV = logits_NV.float()
    if not label_smoothing:
        summed = nn.functional.cross_entropy(logits_NV, targets_N, reduction="sum")
        return summed / step_tokens, summed.detach()
    log_probs_NV = torch.log_softmax(logits_NV, dim=-1)
    summed = -log_probs_NV.gather(1, targets_N.unsqueeze(1)).sum()
    uniform = -log_probs_NV.mean(dim=-1).sum()
    loss = (1 - label_smoothing) * summed + label_smoothing * uniform
    return loss / step_tokens, summed.detach()


class LossWindow:
    """Sums over micro-batches without waiting for the device; read when it is time to log."""

    def __init__(self) -> None:
        self.nll: Tensor | float = 0.0
        self.tokens = 0

    def add(self, nll: Tensor, tokens: int) -> None:
        wide = torch.float32 if nll.device.type == "mps" else torch.float64
        self.nll = self.nll + nll.detach().to(wide)
        self.tokens += tokens

    def clear(self) -> None:
        self.nll, self.tokens = 0.0, 0

    def total(self) -> float:
        """Summed negative log-likelihood of this rank; waits for the device."""
        if isinstance(self.nll, Tensor):
            wait_for_device(self.nll.device)
        return float(self.nll)

    def sum_over_ranks(self, module: pl.LightningModule) -> tuple[float, int]:
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


class KeptLoss(Protocol):
    """A loss that other jobs compute as well, and that the first of them keeps."""

    def read(self) -> float | None:
        """Return it; None where it is not known yet."""

    def keep(self, loss: float) -> None:
        """Keep it for others."""


Batch = Mapping[str, Any]
Score = Callable[[Batch], tuple[Tensor, int]]


def summed_nll(score: Score, batch: Batch) -> tuple[Tensor, int]:
    """Return the summed negative log-likelihood (nats) of a batch's answers, and their tokens.

    Sums of halves are the sum of the whole, so that a validation batch which does not fit never
    touches the batch of training.

    ``score`` gives both for a batch of B examples.

    Raises:
        OutOfMemoryError: a single example did not fit.
    """

    def nll(rows: Sequence[int]) -> tuple[Tensor, int]:
        if len(rows) == count:
            return score(batch)
        return score(some_examples(batch, slice(rows[0], rows[-1] + 1)))

    count = len(batch["input_ids"])
    sizes = BatchSize(count, "one single validation example was scored")
    parts = [part for _, part in halve_on_oom([range(count)], sizes, nll)]
    return torch.stack([part for part, _ in parts]).sum(), sum(tokens for _, tokens in parts)


def _of_all(loss: Loss, logits_NV: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor, int]:
    return *loss(logits_NV, targets_N), targets_N.numel()


class AnswerModule(pl.LightningModule):
    """Fits the trainable weights of a model to answers, given prompts.

    Batches are what ``data.batches.collate`` makes of examples.

    Attributes:
        total_steps: optimiser steps of the whole fit; set by ``fit_job``.
        window: training loss since it was last logged; ``train_loss`` is what was logged then.
        val_loss: mean negative log-likelihood per answer token of the last validation, or None.
        lr_used: learning rate of the last optimiser step.
        grad_norm: norm of the last step's gradient before clipping, or None without clipping.
        untrained: where the validation loss before the first step is kept, if anywhere.
        known_loss: set while a validation only announces this loss.
    """

    seq2seq = False

    def __init__(
        self,
        model: nn.Module,
        optimizer_factory: OptimizerFactory,
        scheduler_factory: SchedulerFactory,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.model = model
        self.optimizer_factory = optimizer_factory
        self.scheduler_factory = scheduler_factory
        self.label_smoothing = label_smoothing
        self.total_steps: int | None = None
        self.train_loss: float | None = None
        self.strict_loading = False
        self.window = LossWindow()
        self.validation = LossWindow()
        self.val_loss: float | None = None
        self.untrained: KeptLoss | None = None
        self.known_loss: float | None = None
        self.lr_used: float | None = None
        self.grad_norm: Tensor | None = None

    def answer_scores(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return logits (N, V) at the N answer positions and the answer tokens (N,)."""
        return answer_logits(self.model, batch), answer_targets(batch, self.seq2seq)

    def answer_losses(self, batch: Batch, loss: Loss) -> tuple[Tensor, Tensor, int]:
        """Return what ``loss`` gives for ``answer_scores``, and N; large logits are made in parts.

        Not where weights are divided among processes, which would gather them for each part.
        """
        if is_sharded(self.model):
            return _of_all(loss, *self.answer_scores(batch))
        return answer_losses(self.model, batch, loss)

    def answer_nll(self, batch: Batch) -> tuple[Tensor, int]:
        """Return the summed negative log-likelihood of a batch's answers, and their tokens."""
        _, summed, tokens = self.answer_losses(batch, partial(answer_loss, step_tokens=1))
        return summed, tokens

    def configure_model(self) -> None:
        """Divide the weights among the processes, where ``trainer.strategy=fsdp`` says so."""
        if self.device_mesh is not None:
            shard(self.model, self.device_mesh["data_parallel"])

    def on_fit_start(self) -> None:
        """Switch dropout on: ``from_pretrained`` returns eval mode and Lightning keeps it."""
        self.model.train()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return this micro-batch's share of the step's loss.

        Lightning divides by the number of accumulated micro-batches and data-parallel training
        averages over ranks; ``step_tokens`` counts both already, so both are undone.
        """
        share = partial(
            answer_loss, step_tokens=batch["step_tokens"], label_smoothing=self.label_smoothing
        )
        loss, summed, tokens = self.answer_losses(batch, share)
        self.window.add(summed, tokens)
        trainer = self.trainer
        return loss * (trainer.accumulate_grad_batches * trainer.world_size)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Differentiate, together with the jobs that shared the forward pass."""
        seat = current_seat()
        if seat is None:
            super().backward(loss, *args, **kwargs)
        else:
            seat.backward(loss)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch; one without ``step_tokens`` only keeps step with the other processes."""
        if self.known_loss is not None:
            return
        if is_sharded(self.model):  # where halves of one process would find no partner
            nll, tokens = self.answer_nll(batch)
        else:
            nll, tokens = summed_nll(self.answer_nll, batch)
        if batch["step_tokens"]:
            self.validation.add(nll, tokens)

    def on_validation_epoch_start(self) -> None:
        self.validation.clear()

    def on_validation_epoch_end(self) -> None:
        """Set ``val_loss``: summed likelihood over tokens, of the whole split and all ranks.

        Raises:
            TrainingError: it is not finite.
        """
        known = self.known_loss
        loss = self.validation.mean_over_ranks(self) if known is None else known
        if not math.isfinite(loss):
            raise non_finite("validation loss", loss, self.global_step)
        self.val_loss = loss
        self.log("val_loss", torch.tensor(loss, dtype=torch.float64), logger=False)

    def forget_losses(self) -> None:
        self.window.clear()
        self.train_loss = self.val_loss = self.lr_used = self.grad_norm = None

    def configure_optimizers(self) -> Any:
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        if not parameters:
            raise TrainingError(
                "The model has no trainable parameters. Attach an adapter (lora=all_linear), or "
                "evaluate it without training."
            )
        optimizer = self.optimizer_factory(parameters)
        total = self.total_steps or int(self.trainer.estimated_stepping_batches)
        scheduler = self.scheduler_factory(optimizer, total)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step", "frequency": 1},
        }

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if str(self.trainer.precision) == "16-mixed":  # whose step reads whether gradients overflow
            wait_for_device(self.device)
        self.lr_used = float(optimizer.param_groups[0]["lr"])

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        if gradient_clip_val is not None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            self.grad_norm = whole(nn.utils.clip_grad_norm_(parameters, gradient_clip_val))

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Return the trainable weights only: the base is never checkpointed."""
        return trainable_state(self.model)

    def load_state_dict(
        self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False
    ) -> None:
        """Load the trainable weights.

        Raises:
            TrainingError: the names or shapes are not exactly the model's own.
        """
        load_trainable(self.model, state_dict, "The checkpoint")

    def cpu(self) -> Self:
        """Stay: Lightning moves a module to the CPU after a fit, and evaluation follows."""
        return self

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move or cast as ``nn.Module.to`` does; of a quantised model only the adapter is cast.

        Raises:
            ModelError: the model is quantised and on another device than the trainer's.
        """
        device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        if not is_quantized(self.model):
            return super().to(*args, **kwargs)
        if dtype is not None:
            for parameter in self.model.parameters():
                if parameter.requires_grad:
                    parameter.data = parameter.data.to(dtype)
        here = {p.device for p in self.model.parameters()}
        if device is not None and not here <= {torch.device(device)}:
            raise ModelError(
                f"A quantised model on {sorted(map(str, here))} cannot be moved to {device}. "
                "Load it on the device that trainer.accelerator and trainer.devices name."
            )
        return self


def non_finite(what: str, value: float, step: int) -> DivergedError:
    """Say that ``what`` is not a number any more at optimiser step ``step``, and what helps."""
    return DivergedError(
        f"The {what} is {value} at optimiser step {step}. Try a lower optimizer.lr, a longer "
        "scheduler.warmup, trainer.gradient_clip=1.0, or trainer.precision=32-true "
        "(16-mixed overflows easily; bf16 does not)."
    )


class CausalModule(AnswerModule):
    """A decoder-only model: one sequence holds prompt and answer; labels align with the inputs."""

    def answer_losses(self, batch: Batch, loss: Loss) -> tuple[Tensor, Tensor, int]:
        """As that of every module, from a pass with the other jobs of a pack where there is one."""
        seat = current_seat()
        logits_NV = None if seat is None else seat.answer_logits(self.model, batch)
        if seat is None or logits_NV is None:
            return super().answer_losses(batch, loss)
        try:
            return _of_all(loss, logits_NV, answer_targets(batch))
        except Exception as error:
            if not seat.gets_alone(error):
                raise
        return super().answer_losses(batch, loss)


class Seq2SeqModule(AnswerModule):
    """The encoder reads the prompt, the decoder writes the answer: ``labels`` (B, U) are its own.

    The T5 family overflows in 16-bit floating point (its activations exceed 65504): bf16 or fp32.
    """

    seq2seq = True

    def on_fit_start(self) -> None:
        if str(self.trainer.precision).startswith("16"):
            raise TrainingError(
                f"trainer.precision={self.trainer.precision} turns this model's activations into "
                "NaN. Choose bf16-mixed, bf16-true or 32-true."
            )
        super().on_fit_start()


class EncoderModule(AnswerModule):
    """A head over classes: ``labels`` (B,) are their numbers, and an answer counts as one token."""

    def answer_scores(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return logits (B, C) of the classes and the classes of the answers (B,)."""
        return class_logits(self.model, batch), batch["labels"]

    def answer_losses(self, batch: Batch, loss: Loss) -> tuple[Tensor, Tensor, int]:
        return _of_all(loss, *self.answer_scores(batch))
