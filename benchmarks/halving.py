"""Does halving keep the winner? A thousand sweeps are drawn from stored learning curves and decided.

    python benchmarks/halving.py                  # from benchmarks/halving_curves.csv
    python benchmarks/halving.py --record nano    # trains the curves of a base and appends them

A curve is one fit of the embedded task (480 rows, 60 steps, cosine schedule) at a rank, a learning
rate and a seed. Its losses are written at several shares of its steps: of the weights as they are
(window 0), and of their mean over the last part (window) of the steps until then. The sweeps are
decided by ``sizewise.sweep.halving``, the function that decides real ones.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sizewise.composition.compose import compose_run
from sizewise.data.batches.collate import collate_training
from sizewise.data.batches.datamodule import SizewiseDataModule
from sizewise.data.build import build_splits
from sizewise.data.tokens.encode import encode_examples
from sizewise.data.tokens.template import ChatTemplate
from sizewise.evaluation.text import pad_id
from sizewise.models.adapter.attach import attach_adapter
from sizewise.models.architecture import context_length
from sizewise.models.base import load_base
from sizewise.models.tokenizer import load_tokenizer
from sizewise.runtime import prepare_environment, quiet, resolve_device, seed_everything
from sizewise.sweep.halving import Rung, halve
from sizewise.training.module import CausalModule, answer_loss, summed_nll
from sizewise.training.optimizer import lr_scale, make_optimizer_factory, warmup_steps

CURVES = Path(__file__).with_name("halving_curves.csv")
COLUMNS = ("base", "rank", "lr", "seed", "share", "window", "loss")
SETTING = ("dataset.max_train=480", "trainer.batch_size=16", "trainer.max_epochs=2")
STEPS = 60
SHARES = (1 / 4, 1 / 3, 1 / 2, 2 / 3, 1.0)
WINDOWS = (0.0, 0.4, 0.6, 0.8)
VALIDATED = 192
# What is trained per base: ranks, learning rates, seeds.
GRIDS = {
    "nano": ((2, 16), (0.0006, 0.0017, 0.0051, 0.0102, 0.0153), (1, 2)),
    "micro": ((4, 16), (0.0005, 0.001, 0.003, 0.006, 0.009), (1,)),
}


def record(base: str) -> Iterator[dict[str, Any]]:
    """Train every curve of a base."""
    for rank, lr, seed in itertools.product(*GRIDS[base]):
        for share, window, loss in curve(base, rank, lr, seed):
            yield dict(
                zip(COLUMNS, (base, rank, lr, seed, f"{share:.4f}", window, f"{loss:.5f}"),
                    strict=True)
            )  # fmt: skip


def curve(base: str, rank: int, lr: float, seed: int) -> Iterator[tuple[float, float, float]]:
    """Train one fit and yield (share of the steps, window, validation loss)."""
    cfg = compose_run(
        [f"model={base}", f"lora.r={rank}", f"optimizer.lr={lr}", f"seed={seed}", *SETTING]
    )
    seed_everything(seed)
    template = ChatTemplate(load_tokenizer(cfg.model), cfg.model.chat_template)
    splits = build_splits(cfg.dataset)
    train, validation = (
        encode_examples(
            examples, template, cfg.dataset.max_length, context=context_length(cfg.model)
        )
        for examples in (splits.train, splits.validation[:VALIDATED])
    )
    model = load_base(cfg.model, cfg.quantization, resolve_device(cfg.trainer))
    model = attach_adapter(model, cfg.lora, cfg.model, seed)
    make_optimizer = make_optimizer_factory(cfg.optimizer, allow_fused=True)
    module = CausalModule(model, make_optimizer, lambda *_: None, 0.0)  # type: ignore[arg-type, return-value]
    data = SizewiseDataModule(
        train=train, validation=validation, batch_size=cfg.trainer.batch_size, accumulate=1,
        eval_batch_size=64, length_grouping=cfg.trainer.length_grouping, seed=seed,
        pad_token_id=pad_id(template), collate=collate_training,
    )  # fmt: skip
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer, warmup = make_optimizer(weights), warmup_steps(cfg.scheduler.warmup, STEPS)
    batches = itertools.chain.from_iterable(itertools.repeat(data.train_dataloader()))
    held_back = list(data.val_dataloader())
    past: list[list[torch.Tensor]] = []
    model.train()
    for step, batch in enumerate(itertools.islice(batches, STEPS)):
        scale = lr_scale(cfg.scheduler.name, step, warmup, STEPS, cfg.scheduler.min_ratio)
        for group in optimizer.param_groups:
            group["lr"] = lr * scale
        logits, targets = module.answer_scores(batch)
        answer_loss(logits, targets, batch["step_tokens"])[0].backward()
        torch.nn.utils.clip_grad_norm_(weights, cfg.trainer.gradient_clip or math.inf)
        optimizer.step()
        optimizer.zero_grad()
        past.append([p.detach().clone() for p in weights])
        for share in (s for s in SHARES if round(s * STEPS) == step + 1):
            for window in WINDOWS if share < 1 else (0.0,):
                yield share, window, averaged_loss(module, weights, past, window, held_back)


@torch.no_grad()
def averaged_loss(
    module: CausalModule,
    weights: Sequence[torch.Tensor],
    past: Sequence[Sequence[torch.Tensor]],
    window: float,
    batches: Sequence[Any],
) -> float:
    """Validation loss of the mean of the last steps' weights; the weights stay as they were."""
    chosen = past[-max(1, round(window * len(past))) :]
    for weight, values in zip(weights, zip(*chosen, strict=True), strict=True):
        weight.copy_(torch.stack(list(values)).mean(0))
    module.model.eval()
    sums = [summed_nll(module.answer_scores, batch) for batch in batches]
    module.model.train()
    for weight, last in zip(weights, past[-1], strict=True):
        weight.copy_(last)
    return float(sum(float(nll) for nll, _ in sums) / sum(tokens for _, tokens in sums))
