"""Peak memory and CPU seconds of a training step: as it was, as it is, and recomputing.

    python benchmarks/step_memory.py --model PATH [--rows 4] [--tokens 600] [--answer 100]

PATH is the folder of a causal model (an embedded name works, too). Every way has a process of its
own; ``glibc`` leaves freed blocks to the C library, as before ``runtime.map_large_blocks``, and
``all_logits`` makes the logits of all answer tokens at once, as before ``head.answer_losses``.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

WAYS = ("glibc", "all_logits", "false", "selective", "true")
STEPS = 3
MIB = 2**20


def step_once(way: str, model: str, rows: int, tokens: int, answer: int) -> dict[str, float]:
    """Do three steps in this process; return the peak and the median seconds of the last two."""
    import torch
    from training_setup import answer_step

    from sizewise.composition.compose import compose_run
    from sizewise.job.bases import storage_of
    from sizewise.models import head
    from sizewise.models.adapter.attach import attach_adapter, enable_checkpointing
    from sizewise.models.base import load_base
    from sizewise.runtime import map_large_blocks

    if way != "glibc" and not map_large_blocks():
        raise SystemExit("This C library has no mallopt.")
    if way in ("glibc", "all_logits"):
        head.MOST_LOGITS = sys.maxsize
    torch.set_num_threads(1)
    named = [f"model.path={model}", "model=local"] if Path(model).is_dir() else [f"model={model}"]
    cfg = compose_run([*named, "lora.r=8", "lora.dropout=0"])
    adapted = attach_adapter(load_base(storage_of(cfg)[0]), cfg.lora, cfg.model, seed=0).train()
    if way in ("selective", "true"):
        enable_checkpointing(adapted, selective=way == "selective")
    vocabulary = adapted.get_input_embeddings().weight.shape[0]
    start = _memory()
    seconds = []
    for _ in range(STEPS):
        begun = time.process_time()
        answer_step(adapted, rows, tokens, answer, vocabulary)
        seconds.append(time.process_time() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"start": start, "peak": peak, "seconds": sum(seconds[1:]) / (STEPS - 1)}


def _memory() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / MIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=600)
    parser.add_argument("--answer", type=int, default=100)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--way", choices=WAYS)
    given = parser.parse_args()
    if given.way:
        found = step_once(given.way, given.model, given.rows, given.tokens, given.answer)
        print(json.dumps(found))
        return
    print("| gradient_checkpointing | peak MiB | of which the step | CPU seconds a step | ratio |")
    print("|---|---:|---:|---:|---:|")
    first = 0.0
    for way in given.ways:
        command = [sys.executable, *sys.argv, "--way", way]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        found = json.loads(done.stdout.splitlines()[-1])
        first = first or found["seconds"]
        print(
            f"| {way} | {found['peak']:,.0f} | {found['peak'] - found['start']:,.0f} | "
            f"{found['seconds']:.1f} | {found['seconds'] / first:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
