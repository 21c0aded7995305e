"""Model, data and ways of training that the training benchmarks share."""

from __future__ import annotations

import copy
import ctypes
import gc
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from sizewise.config import LoraConfig, ModelConfig, OptimizerConfig, SchedulerConfig, TrainerConfig
from sizewise.data.batches.collate import collate_training, on_device
from sizewise.data.batches.datamodule import SizewiseDataModule
from sizewise.data.example import Example, Message
from sizewise.data.tokens.encode import EncodedSplit
from sizewise.data.tokens.table import Encoded
from sizewise.models.adapter.attach import attach_adapter
from sizewise.models.head import answer_logits, answer_losses, answer_targets
from sizewise.training.fit import fit_job
from sizewise.training.module import CausalModule, answer_loss
from sizewise.training.optimizer import make_optimizer_factory, make_scheduler_factory

VOCABULARY = 8192
MAX_LENGTH = 512
RATE, RANK, ALPHA = 1e-3, 8, 32
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SIZES = {  # hidden size, layers, intermediate size: 6.3 M and 0.3 M parameters
    "6M": (256, 4, 1024, VOCABULARY),
    "0.3M": (64, 3, 192, 2048),
}


def make_base(size: str) -> Qwen2ForCausalLM:
    """A random Qwen2 in fp32."""
    hidden, layers, inner, vocabulary = SIZES[size]
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=inner,
        num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=MAX_LENGTH, tie_word_embeddings=True, pad_token_id=0,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return Qwen2ForCausalLM(config).requires_grad_(False)


def make_pairs(count: int, size: str, seed: int = 0) -> list[tuple[list[int], list[int]]]:
    """Prompts of log-normal lengths (median 110 tokens), and answers of 4 to 24 tokens.

    Answers continue a token of the prompt by a fixed rule, so that there is something to learn.
    """
    vocabulary = SIZES[size][3]
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        length = int(np.clip(rng.lognormal(4.7, 0.6), 16, MAX_LENGTH - 25))
        prompt = (3 + rng.zipf(1.3, length) % (vocabulary - 3)).tolist()
        first, steps = prompt[-1], int(rng.integers(4, 24))
        pairs.append(
            (prompt, [*((3 + (first + 7 * i) % (vocabulary - 3)) for i in range(steps)), 2])
        )
    return pairs


def split(pairs: Sequence[tuple[list[int], list[int]]]) -> EncodedSplit:
    """Encoded examples with stand-in texts."""
    examples = tuple(Example((Message("user", str(n)),), "-", str(n)) for n in range(len(pairs)))
    return EncodedSplit(tuple(Encoded(*pair) for pair in pairs), examples)


def module_for(base: nn.Module) -> CausalModule:
    """Our module with LoRA r=8 on all linears of a copy of ``base``."""
    model = attach_adapter(
        copy.deepcopy(base), LoraConfig(r=RANK, alpha=ALPHA, dropout=0.0),  # type: ignore[arg-type]
        ModelConfig(name="bench", path="bench"), seed=0,
    )  # fmt: skip
    optimizer = make_optimizer_factory(OptimizerConfig(target="torch.optim.AdamW", lr=RATE))
    scheduler = make_scheduler_factory(SchedulerConfig(name="constant", warmup=0))
    return CausalModule(model, optimizer, scheduler)


@dataclass(frozen=True)
class Seconds:
    """Wall time and processor time; the latter is steadier on a busy machine."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Seconds:
        return cls(time.perf_counter(), time.process_time())

    def __sub__(self, other: Seconds) -> Seconds:
        return Seconds(self.wall - other.wall, self.cpu - other.cpu)


class Clock(pl.Callback):
    """Time from the start to the end of training."""

    def on_train_start(self, *args: Any, **kwargs: Any) -> None:
        self.begin = Seconds.now()

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds = Seconds.now() - self.begin


def as_fits(device: torch.device) -> torch.autocast:
    """Return the precision that fits have by default: bf16 arithmetic on GPUs, fp32 elsewhere."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def answer_step(model: nn.Module, rows: int, tokens: int, answer: int, vocabulary: int) -> None:
    """Forward and backward pass of a full batch of random tokens, the last ``answer`` learnt."""
    device = next(model.parameters()).device
    batch = random_batch(rows, tokens, answer, vocabulary, device)
    with as_fits(device):
        loss = answer_losses(model, batch, partial(answer_loss, step_tokens=rows * answer))[0]
    loss.backward()


def random_batch(
    rows: int, tokens: int, answer: int, vocabulary: int, device: torch.device, seed: int = 0
) -> dict[str, Any]:
    """Put a batch of random tokens, the last ``answer`` of each row learnt, together as fits do."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, vocabulary, (rows, tokens), generator=generator).tolist()
    items = [Encoded(row[:-answer], row[-answer:]) for row in ids]
    return on_device(collate_training(items, 0, rows * answer, multiple=1), device)


def our_fit(
    base: nn.Module,
    pairs: Sequence[Any],
    batch: int,
    grouping: bool = True,
    accelerator: str = "cpu",
    shipped: bool = False,
) -> tuple[Seconds, nn.Module]:
    """Time of one epoch through ``fit_job``, and the trained model.

    ``shipped``: with the checkpoints and the log of the shipped configuration, which the others
    go without.
    """
    module, clock = module_for(base), Clock()
    data = SizewiseDataModule(
        split(pairs), split(()), batch_size=batch, length_grouping=grouping, seed=0
    )
    config = TrainerConfig(
        max_epochs=1, batch_size=batch, accelerator=accelerator, progress_bar=False
    )
    if not shipped:
        config.checkpoint_every, config.log_every = None, 10
    with tempfile.TemporaryDirectory() as folder:
        fit_job(module, data, config, [clock], [], Path(folder), seed=0)
    return clock.seconds, module.model


def plain_fit(base: nn.Module, pairs: Sequence[Any], batch: int) -> tuple[Seconds, nn.Module]:
    """Time of the same batches in a bare torch loop: what no framework can undercut."""
    model = module_for(base).model
    data = SizewiseDataModule(split(pairs), split(()), batch_size=batch, seed=0)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0, fused=True)
    model.train()
    begin = Seconds.now()
    for planned in data.train_plan(0):
        rows = [data.train.encoded[i] for i in planned.indices]
        inputs = collate_training(rows, 0, planned.step_tokens)
        optimizer.zero_grad()
        loss, _ = answer_loss(
            answer_logits(model, inputs), answer_targets(inputs), planned.step_tokens
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    return Seconds.now() - begin, model


@torch.no_grad()
def held_out_loss(model: nn.Module, pairs: Sequence[Any]) -> float:
    """Mean negative log-likelihood per answer token."""
    model.eval()
    inputs = collate_training([Encoded(*pair) for pair in pairs], 0, 1)
    targets_N = answer_targets(inputs)
    return float(answer_loss(answer_logits(model, inputs), targets_N, len(targets_N))[0])


def give_memory_back() -> None:
    """Return freed memory to the system, so that one way's peak is not the next one's."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
