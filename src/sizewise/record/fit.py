"""What a fit leaves behind, as a record on disk."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sizewise.errors import ConfigError
from sizewise.files import file_hash, parse_json, sealed, unsealed, write_atomically
from sizewise.record.directories import ADAPTER, RunDir

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitResult:
    """The record of a finished fit.

    Attributes:
        steps: optimiser steps made.
        best_step: step of the weights that were kept (0: the untrained adapter).
        best_val_loss: their mean negative log-likelihood per answer token on the validation split.
        seconds: wall time of training, validations and interruptions left out; of steps that
            jobs of a pack made together, an equal share.
        tokens: tokens trained on, padding excluded; ``answer_tokens`` those that were answer.
        peak_bytes: highest device memory, or resident set of the process on a CPU.
        stopped_early: whether training ended before its last planned step.
        batch_size: examples per micro-batch and device that fitted into memory.
        accumulate: micro-batches per optimiser step.
        out_of_memory: the batch shapes that did not fit.
        packed: how many jobs shared a forward and backward pass, on average (1: it was alone).
    """

    steps: int
    epochs: float
    best_step: int
    best_val_loss: float | None
    seconds: float
    tokens: int
    answer_tokens: int
    peak_bytes: int
    stopped_early: bool
    batch_size: int
    accumulate: int
    out_of_memory: list[dict[str, int]] = field(default_factory=list)
    packed: float = 1.0


def write_result(result: FitResult, run_dir: Path) -> None:
    """Write ``fit.json`` atomically: its presence means that training is done.

    It holds the hashes of the adapter's files, which are there already, and its own.
    """
    run = RunDir(run_dir)
    files = {path.name: file_hash(path) for path in sorted(run.adapter.glob("*"))}
    record = sealed({**asdict(result), ADAPTER: files})
    write_atomically(run.fit, json.dumps(record, indent=2) + "\n")


def read_result(run_dir: Path) -> FitResult | None:
    """Return the record of a finished fit, or None if there is none.

    Where the record or a file of the adapter is damaged, that is said, and there is none: what
    was left of the fit, and the answers of its model, are removed.
    """
    if not RunDir(run_dir).fit.is_file():
        return None
    try:
        return load_result(run_dir)
    except ValueError as error:
        forget_fit(run_dir, str(error))
        return None


def load_result(run_dir: Path) -> FitResult:
    """Read the record of a finished fit; the files of its adapter have to be as it left them.

    Earlier versions wrote no hashes, so that there is less to look at.

    Raises:
        ValueError: something is not what the fit wrote; the message names it.
        OSError: the record cannot be read.
    """
    run = RunDir(run_dir)
    try:
        record = unsealed(parse_json(run.fit.read_bytes()))
        hashes = record.pop(ADAPTER, {})
        result = FitResult(**record)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{run.fit.name}: {error}") from error
    for name, digest in hashes.items():
        path = run.adapter / name
        if not path.is_file() or file_hash(path) != digest:
            raise ValueError(f"{ADAPTER}/{name} is not what the training wrote")
    return result


def check_adapter(folder: Path) -> None:
    """Refuse an adapter of a run that is not as its training left it; one from elsewhere passes.

    Raises:
        ConfigError: the fit's record or a file of the adapter is damaged.
    """
    run = RunDir(folder.parent)
    if folder.name != ADAPTER or not run.fit.is_file():
        return
    try:
        load_result(run.path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"run={str(run.path)!r} is damaged: {error}. Train it again.") from error


def forget_fit(run_dir: Path, why: str) -> None:
    """Remove a damaged fit with everything that came of it; the job trains again."""
    run = RunDir(run_dir)
    log.warning("The finished training in %s is damaged (%s): it is done again.", run_dir, why)
    shutil.rmtree(run.adapter, ignore_errors=True)
    for kind in ("tuned", "validation"):
        for path in run.all_predictions.glob(f"{kind}.*"):
            path.unlink()
    run.fit.unlink(missing_ok=True)
