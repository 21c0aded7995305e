"""Pretraining of one rung: a weighted next-token loss on packed exchanges, with Muon.

Weights and the optimisers' state are float32, products of matrices bfloat16.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from tools.embedded_models.architecture import Rung, new_model
from torch.nn import functional

from sizewise.embedded.general_text import Exchange, PretrainingText

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM


COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Optimiser for matrices; updates are scaled to the root mean square of AdamW's (0.2)."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        iterations: int = 5,
    ) -> None:
        defaults = {
            "lr": lr, "momentum": momentum, "weight_decay": weight_decay, "iterations": iterations
        }  # fmt: skip
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Updates all matrices that have a gradient."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._update(matrix, group)

    def _update(self, matrix: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[matrix]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(matrix)
        momentum = state["momentum"].lerp_(matrix.grad, 1 - group["momentum"])
        direction = matrix.grad.lerp(momentum, group["momentum"])
        update = orthogonalise(direction, group["iterations"])
        matrix.mul_(1 - group["lr"] * group["weight_decay"])
        matrix.add_(update, alpha=-group["lr"] * 0.2 * max(matrix.shape) ** 0.5)


def orthogonalise(matrix: torch.Tensor, iterations: int = 5) -> torch.Tensor:
    """The nearest semi-orthogonal matrix, roughly: singular values end between 0.7 and 1.2."""
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).to(torch.bfloat16)
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)


ROW_LENGTH = 256
Encoded = tuple[list[int], int]


@dataclass(frozen=True)
class PackedBatch:
    """Rows of several exchanges; positions start at 0 with each exchange.

    All fields have the shape (rows, ROW_LENGTH). `weights` says how much each
    token counts as a target: 0 for padding and for first tokens.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    weights: torch.Tensor


def encode(exchange: Exchange, tokenizer: PreTrainedTokenizerFast) -> Encoded:
    """Token ids of an exchange in chat format and how many of them are the prompt."""
    prompt = f"<|user|>{exchange.question}<|end|><|assistant|>"
    ids = tokenizer([prompt, f"{exchange.answer}<|end|>"], add_special_tokens=False).input_ids
    return ids[0] + ids[1], len(ids[0])


def packed_batches(
    exchanges: Iterator[Exchange],
    tokenizer: PreTrainedTokenizerFast,
    rows: int,
    prompt_weight: float,
) -> Iterator[PackedBatch]:
    """Endless batches of `rows` rows, filled first-fit from the stream."""
    waiting: list[Encoded] = []
    while True:
        batch = []
        for _ in range(rows):
            while len(waiting) < 64:
                encoded = encode(next(exchanges), tokenizer)
                if len(encoded[0]) <= ROW_LENGTH:
                    waiting.append(encoded)
            batch.append(_fill_row(waiting))
        yield _collate(batch, tokenizer.pad_token_id, prompt_weight)


def _fill_row(waiting: list[Encoded]) -> list[Encoded]:
    """Takes from `waiting` the oldest exchange and whatever else still fits."""
    row: list[Encoded] = []
    room = ROW_LENGTH
    for encoded in list(waiting):
        if len(encoded[0]) <= room:
            row.append(encoded)
            waiting.remove(encoded)
            room -= len(encoded[0])
    return row


def _collate(batch: list[list[Encoded]], pad: int, prompt_weight: float) -> PackedBatch:
    shape = (len(batch), ROW_LENGTH)
    tokens_BT = torch.full(shape, pad)
    positions_BT = torch.zeros(shape, dtype=torch.long)
    weights_BT = torch.zeros(shape)
    for row, encoded in enumerate(batch):
        start = 0
        for ids, prompt in encoded:
            end = start + len(ids)
            tokens_BT[row, start:end] = torch.tensor(ids)
            positions_BT[row, start:end] = torch.arange(len(ids))
            weights_BT[row, start + 1 : start + prompt] = prompt_weight
            weights_BT[row, start + prompt : end] = 1.0
            start = end
    return PackedBatch(tokens_BT, positions_BT, weights_BT)


ROWS_PER_STEP = 16
TOKENS_PER_STEP = ROWS_PER_STEP * ROW_LENGTH
WARMUP_SHARE = 0.05
SEED = 1


@dataclass(frozen=True)
class Phase:
    """One stretch of pretraining on one stream of text, with optimisers of its own."""

    text: PretrainingText
    steps: int
    learning_rate: float
    prompt_weight: float


def single_findings() -> PretrainingText:
    """Text of the first phase: the catalogue, and one finding at a time."""
    return PretrainingText()


def contrasts() -> PretrainingText:
    """Text of the second phase: mostly two findings of which one is meant."""
    return PretrainingText(seed=8, weights=(0.35, 0.6, 0.05), contrasts=0.9)


def phases(rung: Rung) -> tuple[Phase, Phase]:
    """Names of findings first, then which of two findings is meant."""
    return (
        Phase(single_findings(), rung.steps, rung.learning_rate, 0.1),
        Phase(contrasts(), rung.contrast_steps, rung.contrast_learning_rate, 0.02),
    )


@dataclass
class Pretrained:
    """A model and the record of its pretraining; `curve` holds (step, loss in nats)."""

    model: Qwen3ForCausalLM
    tokens_seen: int = 0
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
    """Trains a new model through both phases; a pure function of rung, seed and threads."""
    torch.manual_seed(SEED)
    done = Pretrained(new_model(rung, tokenizer.pad_token_id, tokenizer.eos_token_id).train())
    for phase in phases(rung):
        run_phase(done, phase, tokenizer, report)
    return done


def run_phase(
    done: Pretrained,
    phase: Phase,
    tokenizer: PreTrainedTokenizerFast,
    report: Callable[[str], None],
) -> None:
    """Trains the model for the steps of the phase and adds them to its record."""
    optimizers = _optimizers(done.model, phase.learning_rate)
    batches = packed_batches(iter(phase.text), tokenizer, ROWS_PER_STEP, phase.prompt_weight)
    before = done.curve[-1][0] if done.curve else 0
    losses: list[float] = []
    start = time.perf_counter()
    for step in range(phase.steps):
        losses.append(_step(done.model, next(batches), optimizers, _schedule(step, phase.steps)))
        if (step + 1) % 50 == 0 or step + 1 == phase.steps:
            done.curve.append((before + step + 1, round(sum(losses) / len(losses), 6)))
            seconds = time.perf_counter() - start
            report(f"step {step + 1}/{phase.steps} loss {done.final_loss:.4f} {seconds:.0f} s")
            losses.clear()
    done.tokens_seen += phase.steps * TOKENS_PER_STEP


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
    with torch.autocast("cpu", torch.bfloat16):
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
