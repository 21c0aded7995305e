"""What a fit leaves behind, as a record on disk."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sizewise.errors import TrainingError
from sizewise.files import write_atomically
from sizewise.record.directories import RunDir


@dataclass(frozen=True)
class FitResult:
    """The record of a finished fit.

    Attributes:
        steps: optimiser steps made.
        epochs: passes over the training data.
        best_step: step of the weights that were kept (0: the untrained adapter).
        best_val_loss: their mean negative log-likelihood per answer token on the validation split.
        seconds: wall time of training, validations and interruptions left out.
        tokens: tokens trained on, padding excluded.
        answer_tokens: those that were answer.
        peak_bytes: highest device memory, or resident set of the process on a CPU.
        stopped_early: whether training ended before its last planned step.
        batch_size: examples per micro-batch and device that fitted into memory.
        accumulate: micro-batches per optimiser step.
        out_of_memory: the batch shapes that did not fit.
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


def write_result(result: FitResult, run_dir: Path) -> None:
    """Write ``fit.json`` atomically: its presence means that training is done."""
    write_atomically(RunDir(run_dir).fit, json.dumps(asdict(result), indent=2) + "\n")


def read_result(run_dir: Path) -> FitResult | None:
    """Return the record of a finished fit, or None if there is none.

    Raises:
        TrainingError: the file is damaged.
    """
    path = RunDir(run_dir).fit
    if not path.is_file():
        return None
    try:
        return FitResult(**json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, TypeError) as error:
        raise TrainingError(
            f"{path} is damaged or of another version ({error}). Delete it to train again."
        ) from error
