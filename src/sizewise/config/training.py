"""Schema of the groups ``optimizer``, ``scheduler`` and ``trainer``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from sizewise.config.checks import above, at_least, limit, one_of, within
from sizewise.errors import ConfigError

SELECTIVE = "selective"
PRECISIONS = ("auto", "32-true", "bf16-true", "bf16-mixed", "16-mixed")


# "LoRA Without Regret" (Schulman et al. 2025) and the sweeps behind it: 5e-5 for all weights of a
# model of width 2,000, ten times that for an adapter, falling with the width to the power 0.775.
FULL_RATE, ADAPTER_FACTOR, REFERENCE_WIDTH, WIDTH_POWER = 5e-5, 10.0, 2000, 0.775
# Adam's rate grows with the root of the batch (Malladi et al. 2022); larger batches than this one
# gain nothing. It gives the 2e-4 that QLoRA took for 7 B and batches of 16 (Dettmers et al. 2023).
REFERENCE_BATCH = 32


# All weights of an encoder: 2e-5 to 5e-5 at width 768 in batches of 16 and 32 (Devlin et al. 2019,
# A.3; Liu et al. 2019, Table 10; He et al. 2023), far below a decoder's of that width.
ENCODER_RATE, ENCODER_WIDTH, ENCODER_BATCH = 3e-5, 768, 16


def default_learning_rate(
    width: int | None, adapter: bool, batch: int, encoder: bool = False
) -> float:
    """Return AdamW's peak rate by a rule, two digits long; it is where a search should start.

    Args:
        width: hidden size of the base; None where it is not known before a download, which counts
            as 2,000 (bases of 1 to 8 B parameters have 2,048 to 4,096), of an encoder as 768.
        adapter: whether an adapter is trained (alpha 32), or all weights.
        batch: examples per optimiser step.
        encoder: whether the base is an encoder under a new head.
    """
    full, reference, most = (
        (ENCODER_RATE, ENCODER_WIDTH, ENCODER_BATCH)
        if encoder
        else (FULL_RATE, REFERENCE_WIDTH, REFERENCE_BATCH)
    )
    rate = full * (ADAPTER_FACTOR if adapter else 1.0)
    rate *= (reference / (width or reference)) ** WIDTH_POWER
    rate *= (min(batch, most) / most) ** 0.5
    return float(f"{rate:.2g}")


@dataclass
class OptimizerConfig:
    """A ``torch.optim.Optimizer`` by its import path; ``kwargs`` reach its constructor.

    ``lr``: the shipped options of AdamW take ``model.suggested_lr``, or what the rule of
    docs/sweeps.md gives for the base; the others name their own.
    """

    target: str = MISSING
    lr: float = 2e-4
    weight_decay: float = 0.0
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        above("optimizer.lr", self.lr, 0)
        at_least("optimizer.weight_decay", self.weight_decay, 0)


@dataclass
class SchedulerConfig:
    """Learning rate over optimiser steps: a linear warm-up, then the named course.

    ``warmup`` is a share of all steps where below 1, a number of steps otherwise.
    """

    name: str = "cosine"
    warmup: float = 0.03
    min_ratio: float = 0.0

    def __post_init__(self) -> None:
        one_of("scheduler.name", self.name, ("cosine", "linear", "constant"))
        at_least("scheduler.warmup", self.warmup, 0)
        within("scheduler.min_ratio", self.min_ratio, 0.0, 1.0)


@dataclass
class TrainerConfig:
    """The training loop. ``batch_size`` is per device; the effective batch is
    ``batch_size × accumulate × devices × num_nodes``.

    Training ends at ``max_epochs`` or ``max_steps`` (optimiser steps), whichever comes first; -1
    lifts either limit. ``validate_every`` counts optimiser steps (null: once an epoch; the last
    step is always validated), ``checkpoint_every`` likewise. ``validate_at_start`` scores the
    untrained adapter too, so that the best adapter is never worse than the base.

    ``gradient_checkpointing`` saves memory by computing again in the backward pass: ``selective``
    what is cheap (norms, activations, rotations; products and attention are kept), ``true`` whole
    layers, of which only the input is kept.

    ``strategy``: ``auto``, ``ddp`` (each process holds the whole base) or ``fsdp`` (the base is
    divided among the processes, which train an adapter on it); others reach Lightning by name.
    """

    max_epochs: int = 3
    max_steps: int = -1
    batch_size: int = 8
    accumulate: int = 1
    validate_every: int | None = None
    validate_at_start: bool = True
    checkpoint_every: int | None = 100
    gradient_clip: float | None = 1.0
    gradient_checkpointing: bool | str = False
    label_smoothing: float = 0.0
    length_grouping: bool = True
    precision: str = "auto"
    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"
    num_threads: int | None = None
    deterministic: bool = False
    log_every: int = 10
    progress_bar: bool = True
    keep_last_checkpoint: bool = False

    @property
    def shards(self) -> bool:
        """Whether the weights are divided among the processes of a fit."""
        return self.strategy == "fsdp"

    def __post_init__(self) -> None:
        for key in ("batch_size", "accumulate", "devices", "num_nodes", "log_every"):
            at_least(f"trainer.{key}", getattr(self, key), 1)
        for key in ("validate_every", "checkpoint_every"):
            at_least(f"trainer.{key}", getattr(self, key), 1)
        within("trainer.num_threads", self.num_threads, 1, 65_536)
        above("trainer.gradient_clip", self.gradient_clip, 0)
        within("trainer.label_smoothing", self.label_smoothing, 0.0, 0.99)
        if self.gradient_checkpointing not in (True, False, SELECTIVE):
            raise ConfigError(
                f"trainer.gradient_checkpointing={self.gradient_checkpointing!r}. Choose true, "
                f"false or {SELECTIVE}."
            )
        one_of("trainer.precision", self.precision, PRECISIONS)
        one_of("trainer.accelerator", self.accelerator, ("auto", "cpu", "gpu", "cuda", "mps"))
        for key in ("max_epochs", "max_steps"):
            limit(f"trainer.{key}", getattr(self, key))
        if self.max_epochs == self.max_steps == -1:
            raise ConfigError(
                "trainer.max_epochs=-1 and trainer.max_steps=-1: training would never end. "
                "Set one of them to at least 1, or choose lora=none."
            )
