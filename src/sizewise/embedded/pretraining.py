"""Pretraining of one rung: a weighted next-token loss on packed exchanges."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from sizewise.embedded.architecture import Rung, new_model
from sizewise.embedded.muon import Muon
from sizewise.embedded.packing import ROW_LENGTH, PackedBatch, packed_batches
from sizewise.embedded.pretraining_text import PretrainingText

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

ROWS_PER_STEP = 16
TOKENS_PER_STEP = ROWS_PER_STEP * ROW_LENGTH
PROMPT_WEIGHT = 0.1
WARMUP_SHARE = 0.05
SEED = 1


@dataclass
class Pretrained:
    """A model and the record of its pretraining; `curve` holds (step, loss in nats)."""

    model: Qwen3ForCausalLM
    tokens_seen: int
    curve: list[tuple[int, float]] = field(default_factory=list)

    @property
    def final_loss(self) -> float:
        """Loss of the last recorded stretch of steps."""
        return self.curve[-1][1]


def pretrain(
    rung: Rung,
    tokenizer: PreTrainedTokenizerFast,
    report: Callable[[str], None] = print,
) -> Pretrained:
    """Trains a new model for `rung.steps` steps; a pure function of rung, seed and threads."""
    torch.manual_seed(SEED)
    model = new_model(rung, tokenizer.pad_token_id, tokenizer.eos_token_id).train()
    optimizers = _optimizers(model, rung.learning_rate)
    batches = packed_batches(iter(PretrainingText()), tokenizer, ROWS_PER_STEP, PROMPT_WEIGHT)
    done = Pretrained(model, rung.steps * TOKENS_PER_STEP)
    losses: list[float] = []
    start = time.perf_counter()
    for step in range(rung.steps):
        losses.append(_step(model, next(batches), optimizers, _schedule(step, rung.steps)))
        if (step + 1) % 50 == 0 or step + 1 == rung.steps:
            done.curve.append((step + 1, round(sum(losses) / len(losses), 6)))
            seconds = time.perf_counter() - start
            report(f"step {step + 1}/{rung.steps} loss {done.final_loss:.4f} {seconds:.0f} s")
            losses.clear()
    return done


def weighted_loss(model: Qwen3ForCausalLM, batch: PackedBatch) -> torch.Tensor:
    """Mean cross-entropy in nats over the targets, by their weights."""
    hidden_BTD = model.model(
        input_ids=batch.tokens, position_ids=batch.positions, use_cache=False
    ).last_hidden_state
    weights_BT = batch.weights[:, 1:]
    chosen_BT = weights_BT > 0
    logits_NV = model.lm_head(hidden_BTD[:, :-1][chosen_BT])
    losses_N = functional.cross_entropy(logits_NV, batch.tokens[:, 1:][chosen_BT], reduction="none")
    weights_N = weights_BT[chosen_BT]
    return (losses_N * weights_N).sum() / weights_N.sum()


def _step(
    model: Qwen3ForCausalLM,
    batch: PackedBatch,
    optimizers: list[torch.optim.Optimizer],
    scale: float,
) -> float:
    loss = weighted_loss(model, batch)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * scale
        optimizer.step()
        optimizer.zero_grad()
    return float(loss.detach())


def _optimizers(model: Qwen3ForCausalLM, learning_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings and norms."""
    layers = [p for p in model.model.layers.parameters() if p.ndim == 2]
    matrices = {id(parameter) for parameter in layers}
    rest = [p for p in model.parameters() if id(p) not in matrices]
    muon = Muon([{"params": layers, "base_lr": learning_rate}], lr=learning_rate, weight_decay=0.05)
    adamw = torch.optim.AdamW(
        [{"params": rest, "base_lr": learning_rate}],
        lr=learning_rate,
        betas=(0.9, 0.98),
        weight_decay=0.0,
    )
    return [muon, adamw]


def _schedule(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to a twentieth of the learning rate."""
    warmup = max(1, round(steps * WARMUP_SHARE))
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done))
