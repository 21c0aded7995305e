"""How much the default learning rate loses against tuning it, and whether ranks keep their order.

For each base a grid of ranks × factors of the default `optimizer.lr` is trained (lora.alpha as it
is by default) and the validation loss compared, mean over seeds. The regret is the loss at the
default rate less the best of the grid, as a share of the best. The order of ranks is compared at
half, once and twice the rate that is best over all ranks; the noise of a difference between two
ranks is its standard deviation over seeds.

`python benchmarks/regret.py --models nano micro`; the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from sizewise.composition.compose import compose_run
from sizewise.record.directories import OUTCOME_FILE
from sizewise.record.outcome import read_outcome

ROOT = Path(__file__).resolve().parents[1]
RANKS = (2, 4, 16, 64)
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
SETTING = (
    "dataset.max_train=1200", "trainer.batch_size=16", "trainer.max_epochs=2", "stage=train",
    "logger=none", "trainer.progress_bar=false",
)  # fmt: skip
Losses = Mapping[tuple[int, float], list[float]]


def default_lr(model: str, more: Sequence[str]) -> float:
    return compose_run([f"model={model}", *SETTING, *more]).optimizer.lr


def train(model: str, lr: float, seeds: Sequence[int], folder: Path, more: Sequence[str]) -> None:
    """Train the whole grid of a base, or what is left of it."""
    rates = ",".join(f"{lr * factor:.4g}" for factor in FACTORS)
    command = [
        sys.executable, str(ROOT / "train.py"), "-m", f"model={model}", *SETTING, *more,
        f"seed={','.join(map(str, seeds))}", f"lora.r={','.join(map(str, RANKS))}",
        f"optimizer.lr={rates}", f"sweep.dir={folder}", "hydra.launcher.n_jobs=1",
        "hydra.sweeper.finish=null",
    ]  # fmt: skip
    subprocess.run(command, check=True, cwd=ROOT)


def read(folder: Path, seeds: Sequence[int]) -> Losses:
    """Return the validation losses, one per seed, by rank and rate."""
    found: dict[tuple[int, float], list[float]] = {}
    for path in sorted(folder.glob(f"*/{OUTCOME_FILE}")):
        outcome = read_outcome(path.parent)
        if outcome.seed in seeds and outcome.model.lora_r is not None:
            key = (outcome.model.lora_r, float(outcome.config["optimizer"]["lr"]))
            found.setdefault(key, []).append(outcome.validation["val_loss"])
    return found


def mean(losses: Losses, rank: int, lr: float) -> float:
    return statistics.fmean(losses[rank, lr])


def regret_lines(model: str, losses: Losses, lr: float) -> list[str]:
    """One line per rank: loss at the default rate, the best rate and its loss, the regret."""
    rates = sorted({rate for _, rate in losses})
    default = min(rates, key=lambda rate: abs(math.log(rate / lr)))
    lines = []
    for rank in RANKS:
        best = min(rates, key=lambda rate: mean(losses, rank, rate))
        at_default, at_best = mean(losses, rank, default), mean(losses, rank, best)
        shown = "  ".join(f"{mean(losses, rank, rate):.4f}" for rate in rates)
        regret = (at_default - at_best) / at_best
        lines.append(f"{model} r={rank}: {shown}  best lr {best:g}, regret {regret:.1%}")
    whole = min(mean(losses, rank, rate) for rank, rate in losses)
    kept = min(mean(losses, rank, default) for rank in RANKS)
    lines.append(
        f"{model}: rates {', '.join(f'{rate:g}' for rate in rates)}; best of the grid "
        f"{whole:.4f}, best rank at the default {default:g} {kept:.4f}, "
        f"regret {(kept - whole) / whole:.1%}"
    )
    return lines


def order_lines(model: str, losses: Losses) -> list[str]:
    """The order of ranks at half, once and twice the best rate, and reversals beyond noise."""
    rates = sorted({rate for _, rate in losses})
    overall = {rate: statistics.fmean(mean(losses, rank, rate) for rank in RANKS) for rate in rates}
    at = rates.index(min(overall, key=lambda rate: overall[rate]))
    near = rates[max(0, at - 1) : at + 2]
    lines = [
        f"{model} lr={rate:g}: "
        + " < ".join(f"r={r} {mean(losses, r, rate):.4f}" for r in _ordered(losses, rate))
        for rate in near
    ]
    reversed_ = [
        f"{model}: r={a} and r={b} change places by more than twice the noise"
        for a, b in combinations(RANKS, 2)
        if len({sign for rate in near if (sign := _sign(losses, a, b, rate))}) > 1
    ]
    return lines + (reversed_ or [f"{model}: no two ranks change places beyond the noise"])


def _ordered(losses: Losses, rate: float) -> list[int]:
    return sorted(RANKS, key=lambda rank: mean(losses, rank, rate))


def _sign(losses: Losses, a: int, b: int, rate: float) -> int:
    """Which rank is better: −1 or +1; 0 within two standard errors over the seeds."""
    gaps = [x - y for x, y in zip(losses[a, rate], losses[b, rate], strict=True)]
    noise = statistics.stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else 0.0
    gap = statistics.fmean(gaps)
    return 0 if abs(gap) <= 2 * noise else int(math.copysign(1, gap))


def main() -> None:
    """Train what is missing, then print a line per rank and per rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["nano", "micro"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--folder", type=Path, default=ROOT / "outputs" / "regret")
    parser.add_argument("overrides", nargs="*", help="more overrides, KEY=VALUE")
    options = parser.parse_args()
    for model in options.models:
        folder = options.folder / model
        lr = default_lr(model, options.overrides)
        train(model, lr, options.seeds, folder, options.overrides)
        losses = read(folder, options.seeds)
        print("\n".join([*regret_lines(model, losses, lr), *order_lines(model, losses)]))


if __name__ == "__main__":
    main()
