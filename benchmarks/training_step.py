"""Our training beside HF Trainer + PEFT and TRL's SFTTrainer: same model, data, LoRA and mask.

A 6 M Qwen2 (8,192 tokens of vocabulary), LoRA r=8 on all linears, AdamW, fp32, batches of 8, one
epoch. All ways take turns in every repeat; printed are tokens per second (padding not counted),
peak memory above the start, and the held-out loss afterwards. One step on the same batch must
lower the loss by the same amount in all of them:
`python benchmarks/training_step.py`. Trainers that group by length sort windows of 50 batches, so
that fewer examples than two windows (800) would flatter ours.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peer_trainers import TRL_MISSING, hf_fit, trl_available, trl_fit
from torch import nn
from training_setup import (
    Seconds,
    give_memory_back,
    held_out_loss,
    make_base,
    make_pairs,
    our_fit,
)

from sizewise.devices import PeakMemory, resident_peak

Way = Callable[[nn.Module, list[Any], int], tuple[Seconds, nn.Module]]
OURS = "sizewise"
AIMS = {"TRL padded": 2.5, "HF Trainer padded": 2.0, "HF Trainer length-grouped": 1.2}
CPU = torch.device("cpu")


def ways() -> dict[str, Way]:
    """Every way to be measured, by name."""
    found: dict[str, Way] = {
        OURS: our_fit,
        "sizewise, as shipped": lambda b, p, n: our_fit(b, p, n, shipped=True),
        "sizewise, no length groups": lambda b, p, n: our_fit(b, p, n, grouping=False),
        "HF Trainer padded": hf_fit,
        "HF Trainer length-grouped": lambda b, p, n: hf_fit(b, p, n, grouping=True),
        "HF Trainer length-grouped, answer logits": lambda b, p, n: hf_fit(
            b, p, n, grouping=True, answer_logits=True
        ),
    }
    if trl_available():
        found |= {
            "TRL padded": trl_fit,
            "TRL padded, recomputing (its default)": lambda b, p, n: trl_fit(
                b, p, n, gradient_checkpointing=True
            ),
            "TRL length-grouped": lambda b, p, n: trl_fit(
                b, p, n, train_sampling_strategy="group_by_length"
            ),
            "TRL padding-free": lambda b, p, n: trl_fit(
                b, p, n, padding_free=True, max_length=None
            ),
            "TRL packing": lambda b, p, n: trl_fit(b, p, n, packing=True),
        }
    else:
        print(TRL_MISSING, file=sys.stderr)
    return found


def measure_once(way: Way, base: nn.Module, pairs: list[Any], batch: int) -> dict[str, Any]:
    """Train once; peak memory is what came on top of what was in use."""
    give_memory_back()
    start = PeakMemory(CPU)
    before = resident_peak(Path("/proc/self/status")) or 0
    seconds, model = way(base, pairs, batch)
    peak = (start.read() or 0) - before
    return {"wall": seconds.wall, "cpu": seconds.cpu, "peak": peak, "model": model}


def check_agreement(ways_by_name: dict[str, Way], batch: int) -> dict[str, float]:
    """Let every way make one step on the same batch; the loss on it must fall by the same amount.

    Packing is left out: without a kernel for it, examples of a row see one another.
    """
    base, pairs = make_base("6M"), make_pairs(batch, "6M")
    before = held_out_loss(base, pairs)
    falls = {
        name: before - held_out_loss(way(base, pairs, batch)[1], pairs)
        for name, way in ways_by_name.items()
        if "packing" not in name
    }
    if falls[OURS] <= 0 or any(abs(fall / falls[OURS] - 1) > 0.02 for fall in falls.values()):
        raise SystemExit(f"the ways do not train the same; the loss falls by: {falls}")
    return falls


def measure(
    ways_by_name: dict[str, Way], examples: int, batch: int, repeats: int
) -> dict[str, Any]:
    """Interleaved repeats of all ways, after a round with a few examples that warms up."""
    base, pairs, held_out = make_base("6M"), make_pairs(examples, "6M"), make_pairs(48, "6M", 1)
    tokens = sum(len(p) + len(a) for p, a in pairs)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ways_by_name}
    losses = {"untrained": held_out_loss(base, held_out)}
    for repeat in range(repeats + 1):
        names = list(rows)
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
            row = measure_once(ways_by_name[name], base, pairs if repeat else pairs[:batch], batch)
            losses[name] = held_out_loss(row.pop("model"), held_out)
            print(f"round {repeat} {name}: {row['cpu']:.2f} CPU s", file=sys.stderr)
            if repeat:
                rows[name].append(row)
    return {
        "examples": examples, "batch": batch, "tokens": tokens,
        "ways": {name: summary(rows[name], rows[OURS], tokens) for name in rows},
        "held_out_loss": {name: round(loss, 4) for name, loss in losses.items()},
    }  # fmt: skip


def summary(own: list[dict[str, Any]], ours: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
    """Medians; ``ours_is_faster`` is the median of the paired ratios of time."""
    pairs = list(zip(own, ours, strict=True))
    return {
        "tokens_per_second": round(tokens / statistics.median(r["wall"] for r in own)),
        "tokens_per_cpu_second": round(tokens / statistics.median(r["cpu"] for r in own)),
        "peak_mib": round(statistics.median(r["peak"] for r in own) / 2**20, 1),
        "ours_is_faster": round(statistics.median(a["wall"] / b["wall"] for a, b in pairs), 2),
        "ours_is_faster_cpu": round(statistics.median(a["cpu"] / b["cpu"] for a, b in pairs), 2),
    }


def report(record: dict[str, Any]) -> None:
    """Print the table and whether the aims are met."""
    print(f"{'way':40s} tokens/s  per CPU s  peak MiB  sizewise is … times as fast   held-out loss")
    for name, row in record["ways"].items():
        print(
            f"{name:40s} {row['tokens_per_second']:8d} {row['tokens_per_cpu_second']:10d} "
            f"{row['peak_mib']:9.1f} {row['ours_is_faster']:14.2f} "
            f"({row['ours_is_faster_cpu']:.2f} CPU) {record['held_out_loss'][name]:14.4f}"
        )
    for name, aim in AIMS.items():
        if name in record["ways"]:
            found = record["ways"][name]["ours_is_faster_cpu"]
            print(f"aim {aim}x {name}: {found}x {'met' if found >= aim else 'MISSED'}")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=800)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="names of the ways to measure beside ours")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    ways_by_name = {
        name: way
        for name, way in ways().items()
        if arguments.only is None or name in (OURS, *arguments.only)
    }
    one_step = check_agreement(ways_by_name, arguments.batch)
    print(f"one step on the same batch lowers the loss by: {one_step}")
    result = measure(ways_by_name, arguments.examples, arguments.batch, arguments.repeats)
    report(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
