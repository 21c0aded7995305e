"""From the start of a process to a job's first optimiser step, beside the imports it must have.

    python benchmarks/startup.py [--repeats 5]

`python train.py` on the embedded default with few rows, its base's answers in the cache as for
every job of a sweep but the first, against importing torch, transformers and peft with the classes
that any LoRA run of that model takes from them, and against these with Lightning and W&B. All take
turns; CPU seconds of the process, and the ratios of each turn.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

REACHED = 17
ROOT = Path(__file__).resolve().parents[1]
IMPORTS = (
    "import torch; from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, "
    "PreTrainedTokenizerFast, Qwen3ForCausalLM; from peft import LoraConfig, get_peft_model"
)
WITH_LOOP = f"{IMPORTS}; import pytorch_lightning, wandb"
JOB = (
    "dataset.max_train=32", "dataset.max_validation=4", "dataset.max_test=2",
    "evaluation.timed_answers=0", "trainer.num_threads=1",
)  # fmt: skip


class EndAtFirstStep(pl.Callback):
    """Ends the process where the first batch is about to be learnt from."""

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        os._exit(REACHED)


def cpu_seconds(command: list[str], cwd: Path, code: int = 0) -> float:
    """CPU seconds of ``command``, which must end with ``code``, and of what it started."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode != code:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


def main() -> None:
    """Fill the cache, then measure in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        job = [sys.executable, str(ROOT / "train.py"), *JOB, f"paths.cache={place / 'cache'}"]
        cpu_seconds([*job, f"paths.outputs={place / 'first'}", "trainer.max_steps=1"], place)
        end = "+callbacks.clock._target_=benchmarks.startup.EndAtFirstStep"
        turns = []
        for i in range(repeats):
            bare, loop = (
                cpu_seconds([sys.executable, "-c", code], place) for code in (IMPORTS, WITH_LOOP)
            )
            run = [*job, end, f"paths.outputs={place / str(i)}", f"seed={i + 2}"]
            own = cpu_seconds(run, place, REACHED)
            turns.append((own / bare, own / loop))
            print(f"first step {own:.1f} s, imports {bare:.1f} s, with the loop {loop:.1f} s")
    for name, ratios in zip(("imports", "with the loop"), zip(*turns, strict=True), strict=True):
        middle = statistics.median(ratios)
        print(f"first step / {name}: {middle:.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
