"""Rebuilds or checks the shipped models: `python -m sizewise.embedded.build [--check]`.

Each model is trained by a process of its own with one thread, so the result depends neither
on the number of cores nor on the number of processes. On the same machine with the same
package versions it is the same bit for bit.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from sizewise.embedded.architecture import CONTEXT, RUNGS, Rung
from sizewise.embedded.dialogues import fingerprint, generate_dialogues
from sizewise.embedded.ladder import models_folder
from sizewise.embedded.manifest import differences, write_manifest
from sizewise.embedded.pretraining_text import PretrainingText
from sizewise.embedded.tokenizer import load_tokenizer, train_tokenizer
from sizewise.errors import SizewiseError

TOKENIZER_EXCHANGES = 8000
PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "simple-icd-10-cm")
THREADS = 1


def build(output: Path, rungs: Mapping[str, Rung] = RUNGS, jobs: int = 2) -> Path:
    """Trains tokenizer and models into `output/NAME` and returns the path of the manifest."""
    say(f"Training the tokenizer on {TOKENIZER_EXCHANGES} exchanges")
    exchanges = islice(PretrainingText(), TOKENIZER_EXCHANGES)
    tokenizer = train_tokenizer((f"{e.question}\n{e.answer}" for e in exchanges), CONTEXT)
    for name in rungs:
        tokenizer.save_pretrained(output / name)
    largest_first = sorted(rungs, key=lambda name: -rungs[name].hidden)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        running = {name: pool.submit(train, name, rungs[name], output) for name in largest_first}
        models = {name: running[name].result() for name in rungs}
    facts = {
        "command": "python -m sizewise.embedded.build",
        "threads_per_model": THREADS,
        "packages": {package: version(package) for package in PACKAGES},
        "data_fingerprint": fingerprint(generate_dialogues()),
        "models": models,
    }
    return write_manifest(output, facts)


def train(name: str, rung: Rung, output: Path) -> dict[str, Any]:
    """Pretrains one model, saves it as bfloat16 in `output/name`, returns its record."""
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    import torch
    from transformers.utils import logging

    from sizewise.embedded.pretraining import SEED, pretrain

    logging.disable_progress_bar()
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    start = time.perf_counter()
    tokenizer = load_tokenizer(output / name)
    done = pretrain(rung, tokenizer, report=lambda line: say(f"{name}: {line}"))
    parameters = sum(p.numel() for p in done.model.parameters())
    done.model.generation_config.pad_token_id = tokenizer.pad_token_id
    done.model.generation_config.eos_token_id = tokenizer.eos_token_id
    done.model.to(torch.bfloat16).save_pretrained(output / name)
    (output / name / "model.safetensors").chmod(0o644)
    say(f"{name}: {parameters:,} parameters, {time.perf_counter() - start:.0f} s")
    return {
        "parameters": parameters,
        "seed": SEED,
        "steps": rung.steps,
        "tokens_seen": done.tokens_seen,
        "final_loss_nats": done.final_loss,
        "loss_curve": done.curve,
    }


def check(folder: Path) -> bool:
    """Says whether the files in `folder` are those of the manifest."""
    found = differences(folder, fingerprint(generate_dialogues()))
    for line in found:
        say(line)
    say("The embedded models differ from the manifest." if found else "All files are as built.")
    return not found


def say(line: str) -> None:
    """One line on standard output, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: list[str] | None = None) -> int:
    """Entry of the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m sizewise.embedded.build", description=__doc__)
    parser.add_argument("--output", type=Path, default=models_folder(), help="folder to write to")
    parser.add_argument("--check", action="store_true", help="only compare with the manifest")
    parser.add_argument("--jobs", type=int, default=2, help="models trained at the same time")
    options = parser.parse_args(arguments)
    try:
        if options.check:
            return 0 if check(options.output) else 1
        target = build(options.output, jobs=options.jobs)
        say(f"Wrote {target}")
    except SizewiseError as error:
        say(f"Error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
