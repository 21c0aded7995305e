"""Does halving keep the winner? Sweeps are drawn from stored learning curves and decided.

    python benchmarks/halving.py                  # from benchmarks/halving_curves.csv
    python benchmarks/halving.py --record nano --seed 2   # trains curves and appends them

A curve is one fit of the embedded task (1,200 rows, two epochs of batches of 16, 150 steps of a
cosine schedule) at a rank, a learning rate and a seed. Its losses are written at several shares of
its steps: of the weights as they are (window 0), and of their mean over the last part (window) of
the steps until then. A sweep is some ranks and rates of one base with one seed; it is decided by
``sizewise.sweep.halving``, the function that decides real ones.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

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
from sizewise.sweep.halving import Rung, halve, kept_of
from sizewise.training.milestones import WINDOW
from sizewise.training.module import CausalModule, answer_loss, summed_nll
from sizewise.training.optimizer import lr_scale, make_optimizer_factory, warmup_steps

CURVES = Path(__file__).with_name("halving_curves.csv")
COLUMNS = ("base", "rank", "lr", "seed", "share", "window", "loss")
SETTING = ("dataset.max_train=1200", "trainer.batch_size=16", "trainer.max_epochs=2")
SHARES = (1 / 15, 2 / 15, 1 / 5, 1 / 3, 1 / 2, 2 / 3, 1.0)
WINDOWS = (0.0, WINDOW)
VALIDATED = 192
SWEEPS = 1000


class At(NamedTuple):
    """A rung: after which share of the steps, the fraction of all that goes on, and its margin.

    ``keep`` 0: nothing but the best of each rank.
    """

    share: float
    keep: float
    margin: float | None = None


Rungs = Sequence[At]
# How sweeps are decided: name, rungs, and whether the best of each rank goes on in any case or that
# of the base only.
RULES: tuple[tuple[str, Rungs, bool], ...] = (
    ("half at 1/3", (At(1 / 3, 0.5),), True),
    ("half at 1/3, within 15 %", (At(1 / 3, 0.5, 0.15),), True),
    ("all within 10 % at 1/5", (At(1 / 5, 1.0, 0.1),), True),
    ("all within 10 % at 1/5, of any rank", (At(1 / 5, 1.0, 0.1),), False),
    ("half at 1/2", (At(1 / 2, 0.5),), True),
    ("a quarter at 1/3", (At(1 / 3, 0.25),), True),
    (
        "half at 2/15, 1/3 and 2/3, of any rank",
        (At(2 / 15, 0.5), At(1 / 3, 0.25), At(2 / 3, 0.125)),
        False,
    ),
    ("half at 1/15 and 1/5, of any rank", (At(1 / 15, 0.5), At(1 / 5, 0.25)), False),
    (
        "half at 1/15 and 1/5 within 150 % and 10 %, of any rank",
        (At(1 / 15, 0.5, 1.5), At(1 / 5, 0.25, 0.1)),
        False,
    ),
    (
        "half at 1/15, 1/5 and 2/3, of any rank",
        (At(1 / 15, 0.5), At(1 / 5, 0.25), At(2 / 3, 0.125)),
        False,
    ),
    (
        "half at 1/15, 1/5 and 1/3, of any rank",
        (At(1 / 15, 0.5), At(1 / 5, 0.25), At(1 / 3, 0.125)),
        False,
    ),
    ("an eighth at 1/3, of any rank", (At(1 / 3, 0.125),), False),
    ("one rate each at 1/3", (At(1 / 3, 0.0),), True),
    ("one rate each at 1/2", (At(1 / 2, 0.0),), True),
    ("one rate each at 2/3", (At(2 / 3, 0.0),), True),
)
# What is trained per base: ranks, learning rates (a factor of 1.7 apart), seeds.
STEPS = 150
RATES = (0.0005, 0.00087, 0.0015, 0.0026, 0.0045, 0.0078, 0.0135)
RANKS, SEEDS = (4, 8, 16), (1, 2, 3)
BASES = ("micro", "nano")


def record(base: str, seed: int) -> Iterator[dict[str, Any]]:
    """Train every curve of a base and seed."""
    for rank, lr in itertools.product(RANKS, RATES):
        for share, window, loss in curve(base, rank, lr, seed):
            fit = (base, rank, lr, seed)
            yield dict(zip(COLUMNS, (*fit, f"{share:.4f}", window, f"{loss:.5f}"), strict=True))


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
    sums = [summed_nll(module.answer_nll, batch) for batch in batches]
    module.model.train()
    for weight, last in zip(weights, past[-1], strict=True):
        weight.copy_(last)
    return float(sum(float(nll) for nll, _ in sums) / sum(tokens for _, tokens in sums))


Key = tuple[str, int, float, int]
Curves = Mapping[Key, Mapping[tuple[float, float], float]]


def read(path: Path = CURVES) -> Curves:
    """Curves by base, rank, rate and seed: (share, window) → loss."""
    found: dict[Key, dict[tuple[float, float], float]] = {}
    with path.open(newline="", encoding="utf-8") as handle:
        for row in csv.DictReader(handle):
            key = (row["base"], int(row["rank"]), float(row["lr"]), int(row["seed"]))
            (share,) = (s for s in SHARES if abs(s - float(row["share"])) < 1e-3)
            found.setdefault(key, {})[share, float(row["window"])] = float(row["loss"])
    return found


def draw(curves: Curves, chance: random.Random) -> list[Key]:
    """A sweep: one or more ranks of a base at three rates or more, with one seed."""
    base = chance.choice(sorted({key[0] for key in curves}))
    ranks, rates = (sorted({key[n] for key in curves if key[0] == base}) for n in (1, 2))
    some_ranks = chance.sample(ranks, chance.randint(1, len(ranks)))
    some_rates = chance.sample(rates, chance.randint(3, len(rates)))
    seed = chance.choice(sorted({key[3] for key in curves if key[0] == base}))
    some = itertools.product(some_ranks, some_rates)
    return [(base, int(rank), float(rate), seed) for rank, rate in some]


@dataclass(frozen=True)
class Result:
    """Of many sweeps: how often the winner was kept, the mean regret, the steps that were run.

    ``regret``: the best final loss of the kept over that of all, less 1. ``steps``: as a share of
    those of the whole grid.
    """

    kept: float
    regret: float
    steps: float


def simulate(
    curves: Curves,
    rungs: Rungs,
    window: float,
    sweeps: int = SWEEPS,
    seed: int = 0,
    each_rank: bool = True,
) -> Result:
    chance = random.Random(seed)
    drawn = [draw(curves, chance) for _ in range(sweeps)]
    decided = [_decide(curves, sweep, rungs, window, each_rank) for sweep in drawn]
    regrets = [regret for regret, _ in decided]
    return Result(
        kept=sum(regret == 0 for regret in regrets) / sweeps,
        regret=sum(regrets) / sweeps,
        steps=sum(steps for _, steps in decided) / sweeps,
    )


def _decide(
    curves: Curves, sweep: Sequence[Key], rungs: Rungs, window: float, each_rank: bool
) -> tuple[float, float]:
    """Return the regret of one sweep and the share of its steps that were run."""
    named = {f"{number:02}": curves[key] for number, key in enumerate(sweep)}
    groups = {
        name: str(key[1]) if each_rank else "" for name, key in zip(named, sweep, strict=True)
    }
    climbs = [
        Rung(at.share, kept_of(len(sweep), at.keep) if at.keep else 0, groups, (), at.margin)
        for at in rungs
    ]
    fates = halve(
        named,
        climbs,
        lambda number, names: {n: named[n][rungs[number].share, window] for n in names},
    )
    final = {name: losses[1.0, 0.0] for name, losses in named.items()}
    left = [loss for name, loss in final.items() if not fates[name].out]
    ends = [rungs[fate.passed].share if fate.out else 1.0 for fate in fates.values()]
    return min(left) / min(final.values()) - 1, sum(ends) / len(ends)


def table(curves: Curves, sweeps: int = SWEEPS) -> Iterator[str]:
    """The lines of a table for docs/sweeps.md."""
    yield "| | winner kept | regret | by the weights as they are | | steps run |"
    yield "|---|---:|---:|---:|---:|---:|"
    for name, rungs, each_rank in RULES:
        mean, plain = (
            simulate(curves, rungs, window, sweeps, each_rank=each_rank) for window in (WINDOW, 0.0)
        )
        yield (
            f"| {name} | {mean.kept:.1%} | {mean.regret:.2%} | {plain.kept:.1%} | "
            f"{plain.regret:.2%} | {mean.steps:.0%} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", choices=BASES, help="train the curves of a base")
    parser.add_argument("--seed", type=int, choices=SEEDS, default=1, help="of those curves")
    parser.add_argument("--sweeps", type=int, default=SWEEPS)
    parser.add_argument("--only-seed", type=int, choices=SEEDS, help="draw from its curves alone")
    options = parser.parse_args()
    if options.record is None:
        curves = {k: v for k, v in read().items() if options.only_seed in (None, k[-1])}
        print("\n".join(table(curves, options.sweeps)))
        return
    prepare_environment(hub=False)
    quiet()
    fresh = not CURVES.exists()
    with CURVES.open("a", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, COLUMNS, lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerows(record(options.record, options.seed))


if __name__ == "__main__":
    main()
