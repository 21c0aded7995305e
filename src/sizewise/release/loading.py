"""The model of a finished run, loaded again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sizewise.config import QuantizationConfig, RunConfig, to_run_config
from sizewise.errors import ModelError
from sizewise.job.bases import storage_of
from sizewise.job.tasks import make_template
from sizewise.models.adapter import adapter_folder, cast_adapter, load_adapter
from sizewise.models.base import load_base
from sizewise.models.tokenizer import load_tokenizer
from sizewise.outcome import Outcome, read_outcome
from sizewise.runtime import resolve_device

ADAPTER = "adapter"


@dataclass(frozen=True)
class FinishedRun:
    """A run directory with its record and typed configuration."""

    folder: Path
    outcome: Outcome
    cfg: RunConfig

    @property
    def adapter(self) -> Path:
        """Folder of the trained weights; those that were scored, where the run is an evaluation.

        Raises:
            ModelError: the run trained nothing, or what it scored is no longer there.
        """
        if self.cfg.stage == "evaluate" and self.cfg.adapter is not None:
            return adapter_folder(self.cfg.adapter)
        folder = self.folder / ADAPTER
        if not folder.is_dir():
            raise ModelError(
                f"{self.folder} holds no {ADAPTER}: the run trained nothing (lora=none). "
                "Choose a run that did."
            )
        return folder


def open_run(folder: Path) -> FinishedRun:
    """Read a finished run.

    Raises:
        OutcomeError: it has not finished, or its record is damaged.
        ConfigError: its configuration is not of this version.
    """
    outcome = read_outcome(folder)
    return FinishedRun(folder, outcome, to_run_config(dict(outcome.config)))


def load_run_template(run: FinishedRun) -> Any:
    """Return the template of a run, with its tokenizer."""
    return make_template(load_tokenizer(run.cfg.model), run.cfg.model)


def load_run_base(run: FinishedRun, quantized: bool = True) -> Any:
    """Load the base of a run on the device of its trainer, or of this machine, stored as it was.

    ``quantized`` false: in its own floating-point weights, whatever the run used; that is what an
    adapter is merged into, since merging into 4-bit weights rounds the sum.
    """
    storage = storage_of(run.cfg) if quantized else (run.cfg.model, QuantizationConfig())
    device = resolve_device(replace(run.cfg.trainer, accelerator="auto"))
    return load_base(*storage, device)


def load_run_model(run: FinishedRun, quantized: bool = True) -> Any:
    """Load base and trained weights of a run; the base alone for a run that trained nothing."""
    base = load_run_base(run, quantized)
    if run.outcome.tuned is None:
        return base
    return with_weights(run, base, run.adapter, quantized)


def with_weights(run: FinishedRun, base: Any, folder: Path, as_trained: bool = True) -> Any:
    """Put trained weights on a base of the run; ``as_trained``: in the dtype they had there."""
    model = load_adapter(base, folder).eval()
    if as_trained:
        cast_adapter(model, run.cfg.trainer)
    return model
