"""Rebuilds or checks the shipped models: `python -m tools.embedded_models.build [--check]`."""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tools.embedded_models.architecture import CONTEXT, RUNGS, Rung
from tools.embedded_models.tokenizer import load_tokenizer, train_tokenizer

from sizewise.embedded.dialogues import fingerprint, generate_dialogues
from sizewise.embedded.general_text import Exchange
from sizewise.errors import ModelError, SizewiseError
from sizewise.models.sources import models_folder

TOKENIZER_EXCHANGES = 8000
PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "simple-icd-10-cm")
THREADS = 1


def build(output: Path, rungs: Mapping[str, Rung] = RUNGS, jobs: int = 2) -> Path:
    """Trains tokenizer and models into `output/NAME` and returns the path of the manifest."""
    say(f"Training the tokenizer on {TOKENIZER_EXCHANGES} exchanges")
    exchanges = tokenizer_exchanges()
    tokenizer = train_tokenizer((f"{e.question}\n{e.answer}" for e in exchanges), CONTEXT)
    for name in rungs:
        tokenizer.save_pretrained(output / name)
    largest_first = sorted(rungs, key=lambda name: -rungs[name].hidden)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        running = {name: pool.submit(train, name, rungs[name], output) for name in largest_first}
        models = {name: running[name].result() for name in rungs}
    facts = {
        "command": "python -m tools.embedded_models.build",
        "threads_per_model": THREADS,
        "packages": {package: version(package) for package in PACKAGES},
        "data_fingerprint": fingerprint(generate_dialogues()),
        "models": models,
    }
    return write_manifest(output, facts)


def tokenizer_exchanges() -> Iterator[Exchange]:
    """What the tokenizer is trained on: as much of the one phase's text as of the other's."""
    from tools.embedded_models.pretraining import contrasts, single_findings

    half = TOKENIZER_EXCHANGES // 2
    return chain(islice(single_findings(), half), islice(contrasts(), half))


def train(name: str, rung: Rung, output: Path) -> dict[str, Any]:
    """Pretrains one model, saves it as bfloat16 in `output/name`, returns its record."""
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    import torch
    from tools.embedded_models.pretraining import SEED, pretrain
    from transformers.utils import logging

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
        "contrast_steps": rung.contrast_steps,
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
    parser = argparse.ArgumentParser(
        prog="python -m tools.embedded_models.build", description=__doc__
    )
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


MANIFEST = "manifest.json"


def file_hashes(folder: Path) -> dict[str, dict[str, Any]]:
    """SHA-256 and size in bytes of each file below `folder`, without the manifest itself."""
    return {
        path.relative_to(folder).as_posix(): {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "bytes": path.stat().st_size,
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> Path:
    """Writes `facts` and the hashes of all files in `folder`."""
    target = folder / MANIFEST
    content = {**facts, "files": file_hashes(folder)}
    target.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return target


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder of models; raises ModelError when it is missing or broken."""
    target = folder / MANIFEST
    try:
        content: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{target} is missing: rebuild the embedded models.") from error
    except ValueError as error:
        raise ModelError(f"{target} is not JSON ({error}): rebuild the embedded models.") from error
    return content


def differences(folder: Path, data_fingerprint: str) -> list[str]:
    """Sentences on what differs from the manifest; empty when all is as it was built."""
    manifest = read_manifest(folder)
    found = []
    if manifest.get("data_fingerprint") != data_fingerprint:
        found.append(
            f"The dialogues have the fingerprint {data_fingerprint}, "
            f"the manifest says {manifest.get('data_fingerprint')}."
        )
    expected, present = manifest.get("files", {}), file_hashes(folder)
    found += [f"{name} is missing." for name in expected if name not in present]
    found += [f"{name} is not in the manifest." for name in present if name not in expected]
    found += [
        f"{name} has another content than the manifest says."
        for name, facts in expected.items()
        if name in present and present[name] != facts
    ]
    return found


if __name__ == "__main__":
    sys.exit(main())
