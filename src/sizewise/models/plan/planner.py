"""How much memory a run needs, on which cards it fits, and what would lower it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from sizewise.config.model import LoraConfig, ModelConfig, QuantizationConfig
from sizewise.config.training import SELECTIVE, OptimizerConfig
from sizewise.errors import ModelError
from sizewise.models.architecture import check_vocabulary, model_config
from sizewise.models.dtypes import DTYPES, named_precision, planned_gpu_computes_in_bf16
from sizewise.models.plan.trace import Shape, adapted_meta, trace_generation, trace_training
from sizewise.models.plan.weights import (
    block_bytes,
    cast_bytes,
    largest_linear_bytes,
    optimizer_bytes,
    weight_bytes,
)
from sizewise.models.tokenizer import is_here

if TYPE_CHECKING:
    from transformers import PretrainedConfig


__all__ = ["CARDS_GB", "GB", "MemoryPlan", "Workload", "plan_memory"]
GB = 1_000_000_000
CARDS_GB = (8, 12, 16, 24, 48, 80)
CUDA_CONTEXT = int(0.7 * GB)
FRAGMENTATION = 0.03
# What products are made in. Over a base in that dtype only the adapter is cast.
CASTING = {
    "bf16-mixed": torch.bfloat16,
    "bf16-true": torch.bfloat16,
    "16-mixed": torch.float16,
}


def plan_memory(
    model: ModelConfig,
    quantization: QuantizationConfig,
    lora: LoraConfig,
    optimizer: OptimizerConfig,
    workload: Workload,
    device_type: str = "cuda",
    advise: bool = True,
) -> MemoryPlan:
    """Count parameters and bytes of a run from the architecture alone.

    Activations and logits are found by running a training step and a decoding step of the real
    model classes on the meta device and counting the bytes that would be alive; weights, gradients
    and optimiser states follow from the shapes.

    ``advise``: also look for changes that would make it fit where it does not.

    Raises:
        ModelError: the architecture is not known here and its config cannot be read, or the
            tokenizer, where it is on this machine, is larger than the embedding.
    """
    config = model_config(model)
    if is_here(model):
        check_vocabulary(config, model)
    planner = _Planner(config, model, lora, device_type)
    choice = Choice(quantization, workload, optimizer)
    plan = planner.plan(choice)
    if not advise:
        return plan
    advice = {card: planner.advise(choice, card) for card, fits in plan.fits.items() if not fits}
    return replace(plan, advice=advice)


@dataclass
class _Planner:
    """Traces of one architecture, each made once, and the sums over them."""

    config: PretrainedConfig
    model: ModelConfig
    lora: LoraConfig
    device_type: str
    traces: dict[tuple[object, ...], dict[str, int]] = field(default_factory=dict)
    counts: dict[torch.dtype, tuple[int, int, int]] = field(default_factory=dict)
    weights: dict[tuple[str, torch.dtype], int] = field(default_factory=dict)

    def plan(self, choice: Choice) -> MemoryPlan:
        dtype = self._dtype(choice.quantization)
        trained = self._trained_dtype(dtype)
        total, trainable, adapter_bytes = self._counts(trained)
        last = {"weight_copies": largest_linear_bytes(self.config, choice.quantization, dtype)}

        def stored(kind: torch.dtype) -> dict[str, int]:
            return {"weights": self._weights(choice, kind), "adapters": adapter_bytes}

        training = stored(trained) | self._training(choice, trained) | last
        copies = self._cast_by_autocast(choice, trained)
        if self.lora.method == "full":  # gradients take the place of the copies one by one
            copies = max(0, copies - training["gradients"])
        training["weight_copies"] += copies
        generation = stored(dtype) | self._generation(choice, dtype) | last
        work = choice.workload
        if work.training_cards > 1:
            training = self._divided(training, choice, trained)
        if work.answering_cards > 1:
            generation = self._spread(generation, choice, dtype)
        if not self.lora.trains:
            training = dict.fromkeys(training, 0)
        peaks = [sum(training.values()), sum(generation.values())]
        overhead = self._overhead(max(peaks))
        needed = max(peaks) + overhead
        return MemoryPlan(
            total, trainable, training, generation, overhead,
            peaks[0] + overhead if self.lora.trains else 0, peaks[1] + overhead,
            {card: needed <= card * GB for card in CARDS_GB},
        )  # fmt: skip

    def _divided(self, parts: dict[str, int], choice: Choice, dtype: torch.dtype) -> dict[str, int]:
        """What one of several cards holds in FSDP2: its share, and what it gathers.

        Whole are the block that is computed, the next one, fetched meanwhile, and what stands
        outside of blocks (embedding and head).
        """
        block, outside = block_bytes(self.config, choice.quantization, dtype)
        shares = ("weights", "adapters", "gradients", "optimizer")
        cards = choice.workload.training_cards
        held = {name: -(-parts[name] // cards) for name in shares}
        return parts | held | {"gathered": 2 * block + outside}

    def _spread(self, parts: dict[str, int], choice: Choice, dtype: torch.dtype) -> dict[str, int]:
        """What the fullest of several cards holds of a base whose blocks are spread over them."""
        block, _ = block_bytes(self.config, choice.quantization, dtype)
        cards = choice.workload.answering_cards
        held = {name: -(-parts[name] // cards) for name in ("weights", "adapters", "kv_cache")}
        return parts | held | {"weights": held["weights"] + block}

    def advise(self, choice: Choice, card: int) -> str | None:
        """Name the mildest changes, one after the other, after which the run fits on ``card``."""
        named: list[str] = []
        for name, changed in self._changes(choice):
            named = [n for n in named if n.split("=")[0] != name.split("=")[0]] + [name]
            if self._least(changed) <= card * GB and self.plan(changed).fits[card]:
                return " ".join(named)
        return None

    def _least(self, choice: Choice) -> int:
        """Bytes below which no plan is, without a trace: those of the weights on a single card."""
        if choice.workload.answering_cards > 1:
            return 0
        return self._weights(choice, self._dtype(choice.quantization))

    def _changes(self, choice: Choice) -> list[tuple[str, Choice]]:
        """Ways to need less, each on top of the one before, mildest for the result first."""
        found: list[tuple[str, Choice]] = []

        def add(name: str, **parts: object) -> None:
            last = found[-1][1] if found else choice
            found.append((name, replace(last, **parts)))  # type: ignore[arg-type]

        work = choice.workload
        ways = {False: (SELECTIVE, True), SELECTIVE: (True,), True: ()}
        for way in ways[work.gradient_checkpointing] if self.lora.trains else ():
            work = replace(work, gradient_checkpointing=way)
            add(f"trainer.gradient_checkpointing={str(way).lower()}", workload=work)
        for name, smaller in smaller_batches(work, self.lora.trains):
            add(name, workload=smaller)
        if self.lora.method != "full":
            for method in ("int8", "nf4"):
                if choice.quantization.method not in (method, "nf4"):
                    changed = replace(choice.quantization, method=method)
                    add(f"quantization={method}", quantization=changed)
        elif "8bit" not in choice.optimizer.target.lower():
            changed_optimizer = replace(choice.optimizer, target="bitsandbytes.optim.AdamW8bit")
            add("optimizer=adamw8bit", optimizer=changed_optimizer)
        return found

    def _dtype(self, quantization: QuantizationConfig) -> torch.dtype:
        quantized = quantization.method != "none"
        name = quantization.compute_dtype if quantized else self.model.dtype
        if name == "auto":
            halves = self.device_type == "cuda" and planned_gpu_computes_in_bf16()
            return torch.bfloat16 if halves else torch.float32
        if name not in DTYPES:
            raise ModelError(f"dtype {name!r} is not known. Choose: auto, {', '.join(DTYPES)}.")
        return DTYPES[name]

    def _computed_in(self, precision: str) -> torch.dtype | None:
        """Return what a precision makes products in on a GPU; None: in the weights' own dtype."""
        named = named_precision(precision, self.device_type, planned_gpu_computes_in_bf16)
        return CASTING.get(named) if self.device_type == "cuda" else None

    def _cast_by_autocast(self, choice: Choice, dtype: torch.dtype) -> int:
        """Bytes of the copies that autocast makes of a whole base in another dtype."""
        work, whole = choice.workload, choice.quantization.method == "none"
        computed = self._computed_in(work.precision) if whole else None
        if computed in (None, dtype) or not self.lora.trains:
            return 0
        return cast_bytes(self.config, computed, bool(work.gradient_checkpointing))

    def _trained_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """A base trained in full is fp32 meanwhile, unless ``model.dtype`` names another."""
        whole = self.lora.method == "full" and self.model.dtype == "auto"
        return torch.float32 if whole else dtype

    def _weights(self, choice: Choice, dtype: torch.dtype) -> int:
        key = (repr(choice.quantization), dtype)
        if key not in self.weights:
            self.weights[key] = weight_bytes(self.config, choice.quantization, dtype)
        return self.weights[key]

    def _counts(self, dtype: torch.dtype) -> tuple[int, int, int]:
        """Total and trainable parameters, and bytes of the adapter."""
        if dtype not in self.counts:
            model = adapted_meta(self.config, self.model, self.lora, dtype)
            parameters = list(model.parameters())
            trained = [p for p in parameters if p.requires_grad]
            adapter = trained if self.lora.is_adapter else []
            self.counts[dtype] = (
                sum(p.numel() for p in parameters),
                sum(p.numel() for p in trained),
                sum(p.numel() * p.element_size() for p in adapter),
            )
        return self.counts[dtype]

    def _training(self, choice: Choice, dtype: torch.dtype) -> dict[str, int]:
        """Gradients, optimiser states, activations and logits of one training step."""
        if not self.lora.trains:
            return dict.fromkeys(("gradients", "optimizer", "activations", "logits"), 0)
        work = choice.workload
        shape = Shape(work.batch_size, work.prompt_tokens, work.answer_tokens)
        method = choice.quantization.method
        key = ("training", shape, work.gradient_checkpointing, work.precision, dtype, method)
        if key not in self.traces:
            lean = self.lora.fast and choice.quantization.method != "int8"
            lora = replace(self.lora, fast=lean)
            # On a GPU weights may be divided, and passes shared, where all positions are computed.
            every_row = self.device_type == "cuda" or choice.quantization.method == "int8"
            self.traces[key] = trace_training(
                self.config, self.model, lora, dtype, shape, work.gradient_checkpointing, every_row,
                mixed=self._computed_in(work.precision) == dtype, lean_rest=self.lora.fast,
            )  # fmt: skip
        _, trainable, _ = self._counts(dtype)
        size = dtype.itemsize if self.lora.method == "full" else 4
        states = optimizer_bytes(choice.optimizer, trainable, size)
        return self.traces[key] | {"optimizer": states}

    def _generation(self, choice: Choice, dtype: torch.dtype) -> dict[str, int]:
        work = choice.workload
        shape = Shape(work.eval_batch_size, work.prompt_tokens, work.new_tokens)
        key = ("generation", shape, dtype)
        if key not in self.traces:
            self.traces[key] = trace_generation(self.config, self.model, self.lora, dtype, shape)
        return self.traces[key]

    def _overhead(self, peak: int) -> int:
        if self.device_type != "cuda":
            return 0
        return CUDA_CONTEXT + int(FRAGMENTATION * peak)


@dataclass(frozen=True)
class Workload:
    """What is run: rows per micro-batch and their lengths in tokens.

    ``prompt_tokens`` + ``answer_tokens`` is the padded length of a training row; generation reads
    ``prompt_tokens`` and writes up to ``new_tokens`` for ``eval_batch_size`` rows at once;
    ``own_eval_batch``: that is set apart from ``batch_size``, not the same for both.
    ``training_cards``: among which the weights are divided in training (FSDP2), and
    ``answering_cards``: over which they are spread to answer (``model.device_map``); the plan is
    then that of one card. ``precision`` is ``trainer.precision``.
    """

    batch_size: int = 8
    prompt_tokens: int = 960
    answer_tokens: int = 64
    new_tokens: int = 64
    eval_batch_size: int = 8
    gradient_checkpointing: bool | str = False
    own_eval_batch: bool = False
    training_cards: int = 1
    answering_cards: int = 1
    precision: str = "auto"


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes by part, their peaks, and where they fit.

    Attributes:
        total, trainable: parameters with the adapter, and those that training changes.
        training: bytes by part (weights, adapters, gradients, optimizer, activations, logits,
            weight_copies, gathered) at the peak of a training step. Copies are of weights in the
            dtype that is computed in, beside those that are stored.
        generation: bytes by part (weights, adapters, kv_cache, activations, weight_copies).
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


def smaller_batches(work: Workload, trains: bool) -> Iterator[tuple[str, Workload]]:
    """Halve the batches step by step, each with the settings that make it so.

    ``evaluation.batch_size`` is the trainer's unless it is set; where it is, it has to be lowered
    by its own name.
    """
    first = work.batch_size
    own = work.own_eval_batch or first == 1
    while work.batch_size > 1 or work.eval_batch_size > 1:
        size, rows = max(1, work.batch_size // 2), max(1, work.eval_batch_size // 2)
        named = []
        if size < first and (trains or not own):
            accumulate = f" trainer.accumulate=×{-(-first // size)}" if trains else ""
            named.append(f"trainer.batch_size={size}{accumulate}")
        if own:
            named.append(f"evaluation.batch_size={rows}")
        work = replace(work, batch_size=size, eval_batch_size=rows)
        yield " ".join(named), work
