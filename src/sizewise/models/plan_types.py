"""What the memory planner is asked and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sizewise.config.model import QuantizationConfig
from sizewise.config.training import OptimizerConfig


@dataclass(frozen=True)
class Workload:
    """What is run: rows per micro-batch and their lengths in tokens.

    ``prompt_tokens`` + ``answer_tokens`` is the padded length of a training row; generation reads
    ``prompt_tokens`` and writes up to ``new_tokens`` for ``eval_batch_size`` rows at once;
    ``own_eval_batch``: that is set apart from ``batch_size``, not the same for both.
    """

    batch_size: int = 8
    prompt_tokens: int = 960
    answer_tokens: int = 64
    new_tokens: int = 64
    eval_batch_size: int = 8
    gradient_checkpointing: bool = False
    own_eval_batch: bool = False


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes by part, their peaks, and where they fit.

    Attributes:
        total, trainable: parameters with the adapter, and those that training changes.
        training: bytes by part (weights, adapters, gradients, optimizer, activations, logits,
            dequantized) at the peak of a training step.
        generation: bytes by part (weights, adapters, kv_cache, activations, dequantized).
        overhead: what the device and its allocator need besides.
        training_peak, generation_peak: sums, overhead included.
        fits: card in GB (10⁹ bytes) → whether both peaks fit.
        advice: card → the changes that would make it fit; None where none of ours does.
    """

    total: int
    trainable: int
    training: Mapping[str, int]
    generation: Mapping[str, int]
    overhead: int
    training_peak: int
    generation_peak: int
    fits: Mapping[int, bool]
    advice: Mapping[int, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """One way to run: what the advice varies."""

    quantization: QuantizationConfig
    workload: Workload
    optimizer: OptimizerConfig
