"""Our training loop beside a bare torch loop on the same batches, model and loss.

Both take turns in every repeat; printed is the median of the paired ratios. More than 5 % is a
defect: `python benchmarks/loop_overhead.py --size 0.3M --examples 256 --repeats 7`.
"""

from __future__ import annotations

import argparse
import json
import statistics
from typing import Any

import torch
from training_setup import (
    Seconds,
    give_memory_back,
    held_out_loss,
    make_base,
    make_pairs,
    our_fit,
    plain_fit,
)


def measure(size: str, examples: int, batch: int, repeats: int) -> dict[str, Any]:
    """Medians over paired repeats; the losses must agree."""
    base, pairs, held_out = make_base(size), make_pairs(examples, size), make_pairs(32, size, 1)
    times: dict[str, list[Seconds]] = {"ours": [], "plain": []}
    losses: dict[str, float] = {}
    for repeat in range(repeats + 1):
        ways = [("ours", our_fit), ("plain", plain_fit)]
        for name, way in ways if repeat % 2 else ways[::-1]:
            give_memory_back()
            seconds, model = way(base, pairs, batch)
            losses[name] = held_out_loss(model, held_out)
            if repeat:  # the first one warms up
                times[name].append(seconds)
    if abs(losses["ours"] - losses["plain"]) > 1e-4:
        raise SystemExit(f"the two loops do not train the same: {losses}")
    return {
        "size": size, "examples": examples, "batch": batch, "steps": -(-examples // batch),
        "wall": compare([t.wall for t in times["ours"]], [t.wall for t in times["plain"]]),
        "cpu": compare([t.cpu for t in times["ours"]], [t.cpu for t in times["plain"]]),
        "held_out_loss": losses,
    }  # fmt: skip


def compare(ours: list[float], plain: list[float]) -> dict[str, float]:
    """Median seconds of both, and the median of the paired ratios."""
    ratios = [a / b for a, b in zip(ours, plain, strict=True)]
    medians = statistics.median(ours), statistics.median(plain), statistics.median(ratios)
    return dict(zip(("ours", "plain", "ratio"), (round(m, 4) for m in medians), strict=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="0.3M", choices=["0.3M", "6M"])
    parser.add_argument("--examples", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    record = measure(arguments.size, arguments.examples, arguments.batch, arguments.repeats)
    print(json.dumps(record, indent=2))
